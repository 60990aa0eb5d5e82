"""What a report and the end of a run say of held-out data."""

import json
from types import SimpleNamespace

import pytest

from flows.cli.commands.run import summarise
from flows.reports import held_out
from flows.reports.curves import held_out_series, recorded_curves
from flows.reports.held_out import held_out_section
from flows.reports.run_report import _stage_row
from foundry_core.lineage.render import _sentences

ROWS = [
    {"step": 0, "raw/robot/position_mm": 900.0, "raw/robot/gripper": 0.5},
    {"step": 60, "raw/robot/position_mm": 568.123, "raw/robot/gripper": 0.031},
]
LAST = {"raw/robot/position_mm": 568.123, "mean/robot/position_mm": 571.0}
LAST |= {"raw/robot/gripper": 0.031, "mean/robot/gripper": 0.12, "hold/robot/gripper": 0.02}
READ = {"robot": {"arm": {"samples": 32, "of": 400, "recordings": 2}}}


class Folder:
    """A store whose artifact's files lie in a folder, as far as its manifest names them."""

    def __init__(self, root):
        self.root = root

    def file_path(self, artifact, name):
        return self.root / name

    def read(self, kind, key):
        return artifact(self.root)


def artifact(root, last=LAST, **metrics):
    names = [f"records/{path.name}" for path in (root / "records").iterdir()]
    told = {f"final_validation/{name}": value for name, value in last.items()}
    return SimpleNamespace(
        kind="train_vla",
        files=[SimpleNamespace(path=name) for name in names],
        metrics={"steps": 60, **told, **metrics},
        recipe={"training": {"validation": {"best": {"measure": "robot/position_mm"}}}},
    )


@pytest.fixture
def store(tmp_path):
    records = tmp_path / "records"
    records.mkdir()
    (records / "validation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (records / "metrics.jsonl").write_text("")
    (records / "held_out.json").write_text(json.dumps({"read": READ, "gripper": "stroke"}))
    return Folder(tmp_path)


def cells(html, first):
    row = html.partition(f">{first}</th>")[2].partition("</tr>")[0]
    return [cell.partition("<")[0] for cell in row.split("<td>")[1:]]


def test_every_measure_has_its_unit_its_count_and_what_needs_no_training(store):
    ((name, html),) = held_out_section(store, {"vla": artifact(store.root)})
    assert name == "On held-out data"
    on = "32 windows of 2 episodes"
    assert cells(html, "vla: robot position, mm") == ["568.1", "900", "571", "", on]
    gripper = cells(html, "vla: robot gripper, share of its stroke")
    assert gripper == ["0.031", "0.5", "0.12", "0.02", on]
    head = html.partition("</thead>")[0]
    assert "averaged" not in head and "mean action" in head and "holding still" in head


def test_average_and_weights_stand_apart_and_kept_weights_are_said(store):
    last = {**LAST, "ema/robot/position_mm": 560.0, "raw/captions/exact": 0.25}
    one = artifact(store.root, last, best_step=20, best_value=550.0)
    ((_, html),) = held_out_section(store, {"vla": one})
    assert cells(html, "vla: robot position, mm")[:2] == ["560", "568.1"]
    assert cells(html, "vla: captions word for word, share")[1] == "0.25"
    assert "vla left the weights of step 20, whose robot/position_mm was 550." in html


LIES = (
    "{",
    "[]",
    "[" * 100_000,
    '{"read": {"robot": 3}, "gripper": "stroke"}',
    '{"read": {"robot": {"arm": {"samples": "many", "of": 1, "recordings": 1}}}, "gripper": ""}',
    '{"read": {}, "gripper": "<b>"}',
)


@pytest.mark.parametrize("text", LIES)
def test_a_store_that_lies_of_what_was_measured_costs_that_alone(store, text):
    (store.root / "records/held_out.json").write_text(text)
    rows = [{"step": 0, "raw/robot/gripper": "none"}, {"raw/robot/gripper": 0.1}]
    (store.root / "records/validation.jsonl").write_text("\n".join(map(json.dumps, rows)))
    told = artifact(store.root, last=LAST | {"raw/robot/position_mm": "afar99"})
    ((_, html),) = held_out_section(store, {"vla": told})
    assert "571" in html and "afar99" not in html and "windows" not in html
    recorded_curves(store, told, "vla")


@pytest.mark.parametrize("told", [3, None, {}, {"category": 5, "path": [1], "more": "x"}])
def test_an_event_that_lies_of_a_reason_is_words_in_a_report(told):
    stage = {"stage": "a", "kind": "emit", "key": "k" * 64, "action": "run", "reasons": [told]}
    row = _stage_row(stage, None)
    assert row[:2] == ["a", "emit"] and all(isinstance(cell, str) for cell in row)
    assert all(isinstance(line, str) for line in _sentences([told]))


def test_no_section_of_what_was_not_validated(store):
    assert held_out_section(store, {"vla": artifact(store.root, {})}) == []
    assert held_out_section(store, {"robot": SimpleNamespace(kind="convert_robot")}) == []


def test_a_training_of_no_steps_has_its_point_and_axes_say_their_units(store):
    titles = recorded_curves(store, artifact(store.root), "vla")
    assert "vla: robot gripper, share of its stroke, held out" in titles
    assert "vla: robot position, mm, held out" in titles
    (store.root / "records/held_out.json").unlink()  # of an older training nobody knows which
    titles = recorded_curves(store, artifact(store.root), "vla")
    assert "vla: robot gripper, share of its stroke, or range, held out" in titles


def test_a_head_that_gives_one_chunk_is_one_line():
    both = [{"step": 1, "raw/robot/gripper": 0.5, "raw/robot/best_gripper": 0.5 + 1e-9}]
    assert set(held_out_series(both)["robot gripper"]) == {"raw"}
    both.append({"step": 2, "raw/robot/gripper": 0.5, "raw/robot/best_gripper": 0.4})
    assert set(held_out_series(both)["robot gripper"]) == {"raw", "raw, nearest chunk"}


def test_a_run_ends_with_what_was_measured_and_where_the_report_is(store, monkeypatch, capsys):
    monkeypatch.setattr(held_out, "open_store", lambda uri: store)
    stage = {"name": "vla", "kind": "train_vla", "key": "k", "artifact": None}
    result = {
        "run_id": "r",
        "status": "succeeded",
        "seconds": 1.0,
        "stages": [stage | {"attempt": "a1", "action": "run", "error": None}],
        "metrics": {f"vla.final_validation/{name}": value for name, value in LAST.items()},
    }
    summarise(result)
    said = capsys.readouterr().out
    assert (
        "  held out, vla: robot position 568.1 mm (mean action 571); robot gripper 0.031 share of "
        "its stroke (mean action 0.12, holding still 0.02); on 32 windows of 2 episodes\n"
    ) in said
    assert "  report: foundry report r\n" in said
    summarise(result | {"metrics": {"vla.steps": 60}})
    assert "held out" not in capsys.readouterr().out
