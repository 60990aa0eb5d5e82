"""Metric sinks beside a training: what they are given, and that they cannot harm it."""

import csv
import json
import sys

import pytest
from pydantic import ValidationError
from training_toy import toy_batches, toy_trainer

from foundry_core.errors import FoundryError
from foundry_core.training.config import TrainResources
from foundry_core.training.sinks import SINKS
from foundry_core.training.sinks.base import RunInfo
from foundry_core.training.sinks.csv import CsvSink
from foundry_core.training.sinks.tensorboard import TensorBoardSink
from foundry_core.training.sinks.trackio import TrackioSink
from foundry_core.training.sinks.wandb import WandbSink

# Notes what it is given; fails where its config says so.
NOTES = """
from typing import Literal

from foundry_core.training.sinks.base import MetricSink

RECEIVED = []


class NotesSink(MetricSink):
    kind: Literal["notes"] = "notes"
    fails: str = ""

    def open(self, run):
        RECEIVED.append(run)
        return Writer(self.fails)


class Writer:
    def __init__(self, fails):
        self.fails = fails
        if fails == "open":
            raise OSError("no network")

    def write(self, step, values):
        if self.fails == "write" and step > 4:
            raise RuntimeError("quota exceeded\\nsecond line")
        RECEIVED.append((step, dict(values)))

    def close(self):
        RECEIVED.append("closed")
        if self.fails == "close":
            raise ValueError("half a file")


SINK = NotesSink
"""


def run(first_step: int = 0, **changes) -> RunInfo:
    base = {"stage": "vla", "key": "ab12", "seed": 0, "total_steps": 40}
    return RunInfo(first_step=first_step, **(base | changes))


def rows(path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def logged(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "records" / "metrics.jsonl").open()]


@pytest.fixture
def received(install_member):
    install_member("foundry.metric_sinks", "notes", NOTES)
    received = sys.modules[SINKS.get("notes").__module__].RECEIVED
    received.clear()
    return received


def test_ours_are_found_by_their_files():
    assert {"csv", "tensorboard", "wandb", "trackio"} <= set(SINKS.names())


def test_resources_take_them_and_name_the_nearest():
    given = {"sinks": [{"kind": "csv", "path": "a.csv"}]}
    resources = TrainResources(**given)
    assert resources.sinks == (CsvSink(path="a.csv"),)
    assert TrainResources.model_validate(resources.model_dump(mode="json")) == resources
    with pytest.raises(ValidationError, match="unknown metric sink 'cvs'"):
        TrainResources(sinks=[{"kind": "cvs", "path": "a.csv"}])


def test_the_csv_holds_the_rows_of_metrics_jsonl(tmp_path):
    sink = {"kind": "csv", "path": str(tmp_path / "{stage}-{key}.csv")}
    toy_trainer(tmp_path, stage="vla", key="ab12", resources={"sinks": [sink]}).train()
    found = rows(tmp_path / "vla-ab12.csv")
    assert [{n: float(v) for n, v in row.items()} for row in found] == logged(tmp_path)


def test_a_resumed_training_leaves_the_csv_of_an_uninterrupted_one(tmp_path):
    def stopping(first):
        for step, batch in enumerate(toy_batches(first), start=first):
            if step == 14:
                raise KeyboardInterrupt
            yield batch

    for name, batches in (("straight", [toy_batches]), ("broken", [stopping, toy_batches])):
        resources = {
            "sinks": [{"kind": "csv", "path": str(tmp_path / f"{name}.csv")}],
            "checkpoint_every_steps": 5,
            "log_every": 2,
        }
        for some in batches:
            try:
                toy_trainer(tmp_path / name, batches=some, resources=resources).train()
            except KeyboardInterrupt:
                # Steps 12 and 14 are there, the checkpoint is at 10.
                assert rows(tmp_path / "broken.csv")[-1]["step"] == "14"
    assert (tmp_path / "broken.csv").read_bytes() == (tmp_path / "straight.csv").read_bytes()


def test_a_torn_line_of_a_killed_writer_is_dropped(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("step,loss\n100,1.5\n200,1.25\n21")
    writer = CsvSink(path=str(path)).open(run(first_step=200))
    writer.write(300, {"loss": 1.0})
    assert [row["step"] for row in rows(path)] == ["100", "200", "300"]


def test_a_new_training_replaces_the_file(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("step,loss\n100,1.5\n")
    CsvSink(path=str(path)).open(run()).write(4, {"loss": 1.0})
    assert [row["step"] for row in rows(path)] == ["4"]


def test_a_metric_that_comes_later_makes_a_column(tmp_path):
    path = tmp_path / "a.csv"
    writer = CsvSink(path=str(path)).open(run())
    writer.write(1, {"loss": 2.0})
    writer.write(2, {"loss": 1.0, "z_loss": 0.5})
    assert rows(path) == [
        {"step": "1", "loss": "2.0", "z_loss": ""},
        {"step": "2", "loss": "1.0", "z_loss": "0.5"},
    ]


def test_a_sink_of_another_distribution_sees_every_row(received, tmp_path):
    toy_trainer(tmp_path, resources={"sinks": [{"kind": "notes"}]}, stage="llm", key="k").train()
    first, *steps, last = received
    assert (first.stage, first.key, first.first_step, first.total_steps) == ("llm", "k", 0, 20)
    assert [{"step": step, **values} for step, values in steps] == logged(tmp_path)
    assert last == "closed"


@pytest.mark.parametrize(
    ("fails", "reason", "steps"),
    [
        ("open", "no network", []),
        ("write", "quota exceeded", [4]),
        ("close", "half a file", [4, 8, 12, 16, 20]),
    ],
)
def test_a_failing_sink_costs_one_line_and_no_training(
    received, tmp_path, caplog, fails, reason, steps
):
    sinks = [{"kind": "notes", "fails": fails}, {"kind": "csv", "path": str(tmp_path / "a.csv")}]
    toy_trainer(tmp_path / "a", resources={"sinks": sinks}).train()
    toy_trainer(tmp_path / "b").train()
    (record,) = caplog.records
    assert record.getMessage() == f"metric sink notes is left out from here on: {reason}"
    assert [entry[0] for entry in received if isinstance(entry, tuple)] == steps
    assert len(rows(tmp_path / "a.csv")) == 5
    assert logged(tmp_path / "a") == logged(tmp_path / "b")


@pytest.mark.parametrize(
    ("module", "extra", "sink"),
    [
        ("torch.utils.tensorboard", "tensorboard", TensorBoardSink(folder="unused")),
        ("wandb", "wandb", WandbSink(folder="unused")),
        ("trackio", "trackio", TrackioSink()),
    ],
)
def test_an_absent_package_is_named_with_its_extra(monkeypatch, module, extra, sink):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(FoundryError, match=rf"foundry-robotics\[{extra}\]"):
        sink.open(run())


class Client:
    """What wandb and trackio have in common: init gives a run with log and finish."""

    def __init__(self):
        self.calls = []

    def init(self, **given):
        self.calls.append(given)
        return self

    def log(self, values, step):
        self.calls.append((step, values))

    def finish(self):
        self.calls.append("finished")


@pytest.mark.parametrize(
    ("variable", "mode", "expected"),
    [
        (None, None, "offline"),
        ("online", None, "online"),
        ("online", "disabled", "disabled"),
    ],
)
def test_wandb_stays_offline_until_it_is_asked(tmp_path, monkeypatch, variable, mode, expected):
    client = Client()
    monkeypatch.setitem(sys.modules, "wandb", client)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    if variable:
        monkeypatch.setenv("WANDB_MODE", variable)
    writer = WandbSink(folder=str(tmp_path / "new"), mode=mode).open(run(first_step=20))
    writer.write(24, {"loss": 0.5})
    writer.close()
    opened, *rest = client.calls
    assert (opened["mode"], opened["id"], opened["resume"]) == (expected, "vla-ab12", "allow")
    assert rest == [(24, {"loss": 0.5}), "finished"]
    assert (tmp_path / "new").is_dir()


def test_trackers_see_the_throughput_and_files_do_not(tmp_path, monkeypatch):
    client = Client()
    monkeypatch.setitem(sys.modules, "trackio", client)
    sinks = [{"kind": "trackio"}, {"kind": "csv", "path": str(tmp_path / "a.csv")}]
    toy_trainer(tmp_path, resources={"sinks": sinks}).train()
    steps = [call for call in client.calls if isinstance(call, tuple)]
    assert [step for step, _ in steps] == [4, 4, 8, 8, 12, 12, 16, 16, 20, 20]
    assert {"throughput/steps_per_second", "throughput/data_wait_share"} <= set(steps[1][1])
    assert "loss" in steps[0][1]
    assert not any("/" in name for name in rows(tmp_path / "a.csv")[0])


@pytest.mark.slow("a tracker's own client, with its processes")
def test_wandb_itself_takes_a_run_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    writer = WandbSink(folder=str(tmp_path)).open(run())
    writer.write(4, {"loss": 0.5})
    writer.write(4, {"throughput/mfu": 0.5})
    writer.close()
    assert len(list(tmp_path.glob("wandb/offline-run-*-vla-ab12/*.wandb"))) == 1


@pytest.mark.slow("a tracker's own client, with its processes")
def test_trackio_itself_keeps_a_run(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    pytest.importorskip("trackio")
    writer = TrackioSink().open(run())
    writer.write(4, {"loss": 0.5})
    writer.close()
    from trackio import Api

    (kept,) = Api().runs("foundry")
    assert kept.name == "vla-ab12"


def test_tensorboard_gets_scalars(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    writer = TensorBoardSink(folder=str(tmp_path)).open(run())
    writer.write(4, {"loss": 0.5})
    writer.close()
    events = EventAccumulator(str(tmp_path / "vla-ab12"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("loss")] == [(4, 0.5)]
