"""Controls stand beside a comparison, change none of its tests, and name tasks that say little."""

import csv
import io

import pytest

from foundry_core.errors import FoundryError
from foundry_core.evaluation.comparison.compare import compare
from foundry_core.evaluation.comparison.controls import cautions, with_controls
from foundry_core.evaluation.comparison.grids import grids
from foundry_core.evaluation.comparison.pictures import task_bars, violins
from foundry_core.evaluation.comparison.plots import success_bars
from foundry_core.evaluation.comparison.report import ReportData, write_comparison, write_report
from foundry_core.evaluation.comparison.result import read_comparison
from foundry_core.evaluation.comparison.sentences import verdict
from foundry_core.evaluation.comparison.tables import as_csv, markdown, rows
from foundry_core.evaluation.score import Evaluation
from tasks.compare import Compare, CompareRecipe

AT_ANY_TIME = "success at any time within 100 steps"


def evaluation(criterion=AT_ANY_TIME, **successes):
    outcomes = {task: {i: i < count for i in range(25)} for task, count in successes.items()}
    return Evaluation(budget=25, outcomes=outcomes, criterion=criterion)


POLICIES = {
    "policy": evaluation(open=24, pull=3, press=25),
    "blind": evaluation(open=4, pull=0, press=25),
}
STILL = {"still": evaluation(open=0, pull=0, press=16)}


def test_they_are_shown_and_never_tested(tmp_path):
    alone = compare(POLICIES, "policy")
    found = with_controls(alone, STILL)
    assert (found.labels, found.size) == (["policy", "blind"], 1)
    assert (found.letters, found.differences) == (alone.letters, alone.differences)
    table = rows(found)
    assert table[0] == ["task", "policy", "blind", "still (control)"]
    cells = {row[0]: row[-1] for row in table}
    assert cells["press"].startswith("16/25")
    assert cells["all tasks"].startswith("16/75")
    assert cells["decision"] == table[-1][-1] == ""
    assert "still (control)" in success_bars(found)
    assert [row["n"] for row in csv.DictReader(io.StringIO(as_csv(found)))][-4:] == ["25"] * 3 + [
        "75"
    ]
    write_comparison(tmp_path, found)
    assert read_comparison(tmp_path / "comparison.json") == found


def test_every_table_and_picture_of_many_labels_has_them_last(tmp_path):
    many = {f"v{i}": evaluation(open=4 * i + 3, pull=2 * i, press=5 * i) for i in range(5)}
    alone = compare(many, groups={"doors": ["open", "press"]})
    found = with_controls(alone, STILL)
    assert (found.groups, found.task_tables) == (alone.groups, alone.task_tables)
    shown = grids(found, 200)
    notes = [note for grid in shown for note in grid.notes]
    assert f"Rates: {AT_ANY_TIME}; 95 % Clopper-Pearson intervals." in notes
    assert set(cautions(found)) <= set(notes)
    whole, doors, tasks = shown
    assert whole.rows[-1] == [
        "", "still (control)", "21.33", "16/75", "13 to 32", "0", "21.33", "",
    ]  # fmt: skip
    assert doors.rows[-1][1:4] == ["still (control)", "32.00", "16/50"]
    assert (len(whole.rows), tasks.header[-1]) == (6, "still\n(control)")
    assert {row[0]: row[-1].split("\n")[0] for row in tasks.rows} == {
        "open": "0/25", "pull": "0/25", "press": "16/25",
    }  # fmt: skip
    lines = [row for row in csv.DictReader(io.StringIO(as_csv(found))) if row["kind"] == "control"]
    assert [(row["table"], row["n"], row["letters"]) for row in lines] == [
        ("open", "25", ""), ("pull", "25", ""), ("press", "25", ""),
        ("doors", "50", ""), ("all tasks", "75", ""),
    ]  # fmt: skip
    for picture in (task_bars(found), violins(found, found.summaries())):
        assert "still (control)" in picture.svg() and "<pattern" in picture.svg()
    data = ReportData(title="t", run_id="r", comparison=found, stages=[], losses={})
    page = write_report(tmp_path / "report.html", data).read_text()
    assert page.count("<td>still (control)</td>") == 2  # over all tasks, and in the group
    assert '<th scope="col">still\n(control)</th>' in page
    assert ">still (control)</text>" in page
    assert f"Rates: {AT_ANY_TIME}." in page


def test_tasks_that_a_control_solves_or_nobody_solves_are_named():
    found = with_controls(compare(POLICIES, "policy"), STILL)
    assert cautions(found) == [
        "Doing nothing solves press in 16 of 25: its successes say little.",
        "Nothing is clearly above doing nothing in pull: “policy” 3 of 25, doing nothing 0 of 25.",
    ]
    assert verdict(found).endswith(" ".join(cautions(found)))
    assert cautions(with_controls(found, {"grey": evaluation(open=0)})) == []
    assert cautions(compare(POLICIES, "policy")) == []


def test_when_an_episode_counts_stands_beside_the_rates():
    assert f"Rates: {AT_ANY_TIME}." in markdown(compare(POLICIES, "policy"))
    other = POLICIES | {"blind": evaluation("success after the last of 100 steps", open=4)}
    assert "differs: policy: success at any time within 100 steps; blind: success after" in (
        compare(other, "policy").criterion
    )
    untold = {name: evaluation("", open=4) for name in ("a", "b")}
    assert compare(untold).criterion == ""


def test_a_label_is_one_or_the_other():
    inputs = {"evaluations": {"policy": None, "still": None}, "controls": {"still": None}}
    with pytest.raises(FoundryError, match="'still' is both an evaluation and a control"):
        Compare.check(CompareRecipe(base="policy"), inputs)
