"""Losses of single data sets in training rows: known values, on any ranks, after any kill."""

import csv
import itertools
import json

import pytest
import torch
from training_toy import ToyObjective, toy_batches, toy_trainer

from flows.reports.curves import dataset_series
from foundry_core.errors import FoundryError
from foundry_core.lineage.records import committed_event, metric_lines
from foundry_core.training.distributed import World
from foundry_core.training.metrics import MetricsLog
from foundry_core.training.mixed_batch import DATASETS, ROWS, StepKey

NAMES = {"a": ("left", "right", "never")}


def batches(first, world=World(), sizes=(8, 4)):
    """Samples of a belong to the data sets in turns of three rows; every fourth step is one's."""
    for step, batch in zip(itertools.count(first), toy_batches(first, world, sizes), strict=False):
        owners = batch["a"][DATASETS] * (step % 4 != 3)
        yield {**batch, "a": {**batch["a"], DATASETS: owners}}


def run(folder, **changes):
    trainer = toy_trainer(folder, batches=batches, datasets=NAMES, **changes)
    result = trainer.train()
    rows = [json.loads(line) for line in (folder / "records" / "metrics.jsonl").open()]
    return trainer, result, rows


def test_rows_have_the_means_of_their_own_elements(tmp_path):
    """By hand, of weights that do not move."""
    still = {"optimizer": {"lr": 1e-30, "weight_decay": 0.0}}
    trainer, result, rows = run(tmp_path, steps=8, training=still)
    objective = ToyObjective()
    for row, steps in zip(rows, (range(4), range(4, 8)), strict=True):
        sums, counts = torch.zeros(2), torch.zeros(2)
        for step, batch in zip(steps, batches(steps.start), strict=False):
            part = batch["a"]
            found = objective(trainer.model, part, StepKey(seed=3, step=step))[ROWS]
            elements = objective.elements(part)
            for number in range(2):
                mine = part[DATASETS] == number
                sums[number] += found[mine].sum()
                counts[number] += elements[mine].sum()
        assert row["a_loss/left"] == pytest.approx(float(sums[0] / counts[0]), rel=1e-5)
        assert row["a_loss/right"] == pytest.approx(float(sums[1] / counts[1]), rel=1e-5)
        assert not any(name.startswith("b_loss/") for name in row)
        assert "a_loss/never" not in row  # nothing was drawn of it
    assert result.metrics()["final_a_loss/left"] == rows[-1]["a_loss/left"]


def test_the_report_draws_a_line_for_each(tmp_path):
    _, _, rows = run(tmp_path, steps=8)
    wanted = {n: [(row["step"], row[f"a_loss/{n}"]) for row in rows] for n in ("left", "right")}
    assert dataset_series(metric_lines(tmp_path.joinpath)) == {"a": wanted}


def test_sinks_and_lineage_have_them(tmp_path):
    sinks = {"resources": {"sinks": [{"kind": "csv", "path": str(tmp_path / "rows.csv")}]}}
    _, _, rows = run(tmp_path, steps=8, **sinks)
    with (tmp_path / "rows.csv").open() as stream:
        written = list(csv.DictReader(stream))
    assert [float(row["a_loss/left"]) for row in written] == [row["a_loss/left"] for row in rows]
    event, _ = committed_event({}, tmp_path.joinpath)
    lines = {(r["step"], r["name"]): r["value"] for r in event.metric_rows}
    assert lines[8, "a_loss/right"] == rows[-1]["a_loss/right"]


def test_a_data_set_that_a_window_lacks_has_no_number_there(tmp_path):
    _, _, rows = run(tmp_path, steps=4, resources={"log_every": 1})
    assert [sorted(n for n in row if "/" in n) for row in rows] == [
        *[["a_loss/left", "a_loss/right"]] * 3,
        ["a_loss/left"],
    ]


def test_micro_batches_add_up_and_weights_are_the_same_without(tmp_path):
    trainer, _, whole = run(tmp_path / "whole", steps=6)
    _, _, parts = run(tmp_path / "parts", steps=6, resources={"micro_batch": 3})
    for one, other in zip(whole, parts, strict=True):
        assert one.keys() == other.keys()
        assert one == pytest.approx(other, rel=1e-4)
    plain = toy_trainer(tmp_path / "plain", steps=6)
    plain.train()
    for left, right in zip(trainer.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(left, right)


def test_a_killed_run_leaves_the_same_rows(tmp_path):
    _, _, straight = run(tmp_path / "straight", steps=10)
    saves = {"resources": {"checkpoint_every_steps": 3}}

    def until(first):
        return itertools.islice(batches(first), 6 - first)

    killed = toy_trainer(tmp_path / "killed", steps=10, datasets=NAMES, batches=until, **saves)
    with pytest.raises(FoundryError, match="the data ended"):
        killed.train()
    _, result, rows = run(tmp_path / "killed", steps=10, **saves)
    assert result.resumed_from == 6
    assert rows == straight


def test_a_window_is_a_mean_over_elements_not_over_steps(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.add({"loss": 1.0}, {"robot_loss/a": (6.0, 3.0), "robot_loss/b": (0.0, 0.0)})
    log.add({"loss": 3.0}, {"robot_loss/a": (1.0, 4.0)})
    state = json.loads(json.dumps(log.state()))
    assert log.write_row(2) == {"loss": 2.0, "robot_loss/a": 1.0}
    log.restore(state)
    log.add({"loss": 5.0}, {"robot_loss/a": (7.0, 0.0)})
    assert log.write_row(3) == {"loss": 3.0, "robot_loss/a": 2.0}
