"""Tables on a narrow terminal: nothing is cut inside a name, and nothing is lost."""

import io

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from foundry_core.lineage.render import runs_table, table_of
from foundry_core.narrow import Fitting, folded

RUN = {
    "run_id": "20261127T114512-demo-24f137",
    "started_at": "2026-11-27T11:45:12",
    "status": "succeeded",
    "seconds": 611.8,
    "scores": {"evaluate": {"success_rate": 0.5, "n": 4}},
    "overrides": [("llm.training.steps", 400)],
    "error": None,
}
WHY = "vlm.training.steps: 8 → 32; llm.training.steps: 8 → 400"


def shown(renderable, width):
    stream = io.StringIO()
    Console(file=stream, width=width, highlight=False).print(renderable)
    lines = [line.rstrip() for line in stream.getvalue().splitlines()]
    assert max(map(len, lines)) <= width
    return lines


def plan(*stages):
    table = Table(title="plan of words")
    for column in ("seed run", *stages, "empty", "why"):
        table.add_column(column, overflow="fold")
    table.add_row("steps=32/0", *("[green]as base" for _ in stages), "", WHY)
    return table


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        (WHY, 20, ["vlm.training.steps:", "8 → 32;", "llm.training.steps:", "8 → 400"]),
        ("vlm.training.steps: 8", 14, ["vlm.training.", "steps: 8"]),
        ("/tmp/store/runs", 8, ["/tmp/", "store/", "runs"]),
        ("lr 0.00025 0.5", 5, ["lr", "0.00025", "0.5"]),  # a number is never cut
        ("one\ntwo three", 5, ["one", "two", "three"]),
        ("", 5, [""]),
    ],
)
def test_texts_fold_between_words_and_parts_of_a_path(text, width, lines):
    assert folded(Text(text), width).plain.split("\n") == lines


def test_a_table_that_fits_and_one_into_a_file_stay_as_they_are():
    table = plan("llm")
    for width in (120, 100_000):
        assert shown(Fitting(table), width) == shown(table, width)


def test_empty_columns_go_before_anything_is_folded():
    lines = shown(Fitting(plan("llm")), 86)
    assert "empty" not in "".join(lines)
    assert any(WHY in line for line in lines)


def test_a_narrow_table_folds_the_longest_text_between_words():
    text = "\n".join(shown(Fitting(plan("llm")), 70))
    assert "┃ seed run" in text
    for whole in ("steps=32/0", "as base", "8 → 400"):
        assert whole in text
    why = "".join(line.split("│")[3] for line in text.splitlines() if line.startswith("│"))
    assert "".join(why.split()) == "".join(WHY.split())


def test_what_has_no_room_stands_in_lines():
    stages = ("exam_llm", "exam_vlm", "vlm", "vla", "evaluate")
    assert shown(Fitting(plan(*stages)), 66) == [
        "plan of words",
        "seed run  steps=32/0",
        *(f"{stage:<8}  as base" for stage in stages),
        f"why       {WHY}",
    ]


def test_runs_and_queries_are_readable_at_80_columns():
    lines = shown(runs_table([RUN, RUN]), 80)
    for whole in ("20261127T114512-demo-24f137", "succeeded", "611.8", "evaluate 0.500 (n=4)"):
        assert sum(whole in line for line in lines) == 2
    wide = {
        "pipeline": "demo",
        "started_at": "2026-11-27 11:45",
        **dict.fromkeys("abcdefg", "x" * 9),
    }
    lines = shown(table_of([wide, {**wide, "pipeline": None}]), 80)
    assert lines[:2] == ["pipeline    demo", "started_at  2026-11-27 11:45"]
    assert lines[9:11] == ["", "started_at  2026-11-27 11:45"]
