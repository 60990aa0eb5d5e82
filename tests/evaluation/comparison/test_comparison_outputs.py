"""What is printed and written of a comparison of nine labels over nineteen tasks."""

import csv
import io
import json
import random
from dataclasses import fields

import pytest
from rich.console import Console

from flows.cli import main
from foundry_core.evaluation.comparison.compare import compare
from foundry_core.evaluation.comparison.files import write_all
from foundry_core.evaluation.comparison.grids import summary_grids
from foundry_core.evaluation.comparison.names import folded, without_common_start
from foundry_core.evaluation.comparison.pictures import pictures
from foundry_core.evaluation.comparison.report import ReportData, write_report
from foundry_core.evaluation.comparison.result import read_comparison
from foundry_core.evaluation.comparison.sentences import verdict
from foundry_core.evaluation.comparison.tables import as_csv, markdown, terminal_tables
from foundry_core.evaluation.results.lbm import write_results
from foundry_core.evaluation.score import EpisodeResult, Evaluation

TASKS = [f"BimanualPutSpatulaNumber{i}OnPlateFromTheUtensilCrock" for i in range(19)]
LABELS = [f"Foundry-VisionLanguageAction-2.1B-v{i}" for i in range(9)]


def outcomes(label: int) -> dict[str, dict[int, bool | None]]:
    draw = random.Random(label)
    share = 0.1 + 0.09 * label
    return {
        task: {i: None if draw.random() < 0.02 else draw.random() < share for i in range(40)}
        for task in TASKS
    }


@pytest.fixture(scope="module")
def many():
    evaluations = {
        label: Evaluation(budget=40, outcomes=outcomes(i)) for i, label in enumerate(LABELS)
    }
    return evaluations, compare(evaluations, groups={"last three": TASKS[16:]})


def printed(found, width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    for part in terminal_tables(found, width):
        console.print(part)
    return console.file.getvalue()


@pytest.mark.parametrize("base", [None, LABELS[0]])
@pytest.mark.parametrize("width", [80, 100])
def test_tables_fit_the_terminal(many, width, base):
    found = compare(many[0], base, groups={"last three": TASKS[16:]})
    text = printed(found, width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    # No cell is cut, and only names are folded.
    assert "…" not in text
    for label in LABELS:
        score = found.scores[TASKS[3]][label]
        mark = found.mark(found.task_tables[TASKS[3]], label)
        assert f"{score.successes}/{score.n} {mark}" in text
    rows = [line for line in lines if line.lstrip().startswith("#")]
    ranked = [line for line in rows if "/" in line and " to " in line]
    assert len(ranked) == 2 * len(LABELS)
    assert "last three (3 tasks; a family of" in text
    assert "Each task is a family of its own" in text


def test_csv_is_tidy(many):
    _, found = many
    rows = list(csv.DictReader(io.StringIO(as_csv(found))))
    assert len(rows) == (1 + 1 + 19) * 9
    assert {row["kind"] for row in rows} == {"all", "group", "task"}
    for row in rows:
        table = {**found.summaries(), **found.task_tables}[row["table"]]
        one = table.overall[row["label"]]
        assert float(row["rate"]) == one.rate
        assert float(row["rate_with_crashes"]) == one.rate_with_crashes
        assert row["letters"] == table.letters[row["label"]]
        assert [int(row[name]) for name in ("n", "successes", "crashed", "pending")] == [
            getattr(one.counted, each.name) for each in fields(one.counted)
        ]
    against = csv.DictReader(io.StringIO(as_csv(compare(many[0], LABELS[2]))))
    for row in against:
        if row["label"] == LABELS[2]:
            assert row["decision"] == ""
        else:
            assert row["decision"] in ("better", "worse", "not separated", "no verdict")
            assert row["base"] == LABELS[2]


def test_markdown_has_the_groups_and_the_crashes(many):
    text = markdown(many[1])
    assert "**last three (3 tasks; a family of 36 pairs, Holm)**" in text
    assert "**crashed episodes by cause**" in text
    tables = [block for block in text.split("\n\n") if block.startswith("|")]
    for table in tables:
        assert len({line.count("|") for line in table.splitlines() if line.startswith("|")}) == 1


def test_all_is_written_and_read_again(many, tmp_path):
    _, found = many
    write_all(tmp_path / "new", found)
    names = {path.name for path in (tmp_path / "new").iterdir()}
    drawn = {f"{name}.{form}" for name in pictures(found) for form in ("svg", "png")}
    assert names == {"comparison.json", "comparison.csv", "comparison.md"} | drawn
    assert set(pictures(found)) == {
        "violins", "violins_by_task", "success_by_task", "forest", "radar",
    }  # fmt: skip
    assert read_comparison(tmp_path / "new" / "comparison.json") == found
    forest = (tmp_path / "new" / "forest.svg").read_text()
    assert forest.count("better, p") + forest.count("not separated, p") > 30
    assert (tmp_path / "new" / "forest.png").read_bytes().startswith(b"\x89PNG")


def test_the_report_shows_forest_groups_and_crashes(many, tmp_path):
    data = ReportData(title="t", run_id="r", comparison=many[1], stages=[], losses={})
    page = write_report(tmp_path / "report.html", data).read_text()
    for part in (
        "Differences of success rates",
        "last three (3 tasks",
        "crashed episodes by cause",
    ):
        assert part in page


def test_names():
    assert without_common_start(["Foundry-A-1", "Foundry-A-2"]) == {
        "Foundry-A-1": "1", "Foundry-A-2": "2",
    }  # fmt: skip
    assert without_common_start(["a-b", "a-b-c"]) == {"a-b": "b", "a-b-c": "b-c"}
    assert without_common_start(["one", "other"]) == {"one": "one", "other": "other"}
    assert without_common_start(["alone"]) == {"alone": "alone"}
    assert folded("PutBananaOnSaucer", 10) == "PutBanana\nOnSaucer"
    assert folded("pick-place-v3", 40) == "pick-place"


@pytest.fixture
def tree(tmp_path):
    for model, successes in (("one", 9), ("two", 1)):
        for task in ("Open", "Pull"):
            episodes = [
                EpisodeResult(task=task, scenario=i, success=i < successes) for i in range(10)
            ]
            write_results(tmp_path / "tree", model, episodes, requested=10, budget=10)
    return tmp_path / "tree"


def test_the_command_prints_every_format_and_writes_the_folder(tree, tmp_path, capsys):
    command = ["eval", "compare", str(tree), "--group", "drawers=Pull"]
    starts = {"table": "all tasks (2 tasks", "csv": "table,kind", "markdown": "| task |"}
    for form, start in starts.items():
        assert main([*command, "--format", form]) == 0
        text = capsys.readouterr().out
        assert text.startswith(start)
        assert max(map(len, text.splitlines())) < 1000  # no line is filled up in a pipe
    assert main([*command, "--json", "--out", str(tmp_path / "out")]) == 0
    document = json.loads(capsys.readouterr().out)
    assert list(document["groups"]) == ["drawers"]
    assert (document.pop("budgets"), document.pop("unequal")) == ({"one": 10, "two": 10}, [])
    assert document == json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert main(["eval", "compare", str(tree), "--group", "drawers=Pul"]) == 2
    assert "did you mean 'Pull'?" in capsys.readouterr().err


def test_what_could_have_separated_nothing_has_a_dash_for_its_power():
    one = {"a": {0: True, 1: False}, "b": {0: False, 1: False}}
    found = compare({k: Evaluation(budget=2, outcomes={"t": v}) for k, v in one.items()}, "a")
    assert "this much data could have separated nothing" in verdict(found)
    (grid,) = (one for one in summary_grids(found, "all", found) if "80 % power" in one.header)
    assert [row[grid.header.index("80 % power")] for row in grid.rows] == ["-"]
