"""What a run says while it goes on: bars that a narrow terminal does not cut, lines in a log."""

import io
import re

import pytest

from flows.console import Console
from flows.note import shortened
from flows.runs.events import StageFailedEvent, StageProgress, StageStarted

TRAINING = {
    "done": 30,
    "total": 400,
    "message": "training",
    "values": {"loss": 0.12345, "lr": 1e-3, "samples_per_second": 1234.5},
}
EVENTS = (
    *map(StageStarted, ("vla_blind", "evaluate_blind", "evaluate_untrained", "probe")),
    StageProgress("vla_blind", TRAINING),
    StageProgress("evaluate_blind", {"done": 3, "total": 12, "message": "window-open-v3"}),
    StageFailedEvent("evaluate_untrained", "ValueError: far too long to stand in one line here"),
)


def _frame(monkeypatch, width, events):
    """The last picture on a terminal of so many columns: its rows, without the bars."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(width))
    out = io.StringIO()
    with Console(file=out) as console:
        for event in events:
            console.observe(event)
    last = out.getvalue().rpartition("\x1b[2K")[2]
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", last).strip().splitlines()
    assert all(len(line) <= width for line in shown)
    return [re.sub(r"\s*[━╸╺]+ +", " | ", line).rstrip() for line in shown]


def test_at_80_columns_only_what_is_said_of_a_stage_gives_way(monkeypatch):
    assert _frame(monkeypatch, 80, EVENTS) == [
        "vla_blind | 8 % 0:00:00 training loss 0.1235 lr 0.001",
        "evaluate_blind | 25 % 0:00:00 window-open-v3",
        "evaluate_untrained | 0 % 0:00:00 failed: ValueError: far too long…",
        "probe | 0 % 0:00:00 starting",
    ]


def test_a_wide_terminal_shows_every_metric(monkeypatch):
    first = _frame(monkeypatch, 120, EVENTS)[0]
    assert first == (
        "vla_blind | 8 % 0:00:00 training loss 0.1235 lr 0.001 samples_per_second 1234"
    )


def test_a_name_that_leaves_no_room_stands_in_lines(monkeypatch):
    name = "vla.training.steps=1000/seed=2/evaluate_untrained"
    shown = _frame(monkeypatch, 80, [StageStarted(name)])
    assert "".join(line.split(" | ")[0].strip() for line in shown) == name
    assert shown[0].endswith("| 0 % 0:00:00 starting")


@pytest.mark.parametrize(
    ("parts", "width", "found"),
    [
        (("training", "loss 0.1", "lr 0.001"), 25, "training loss 0.1"),
        (("training", "loss 0.1", "lr 0.001"), 26, "training loss 0.1 lr 0.001"),
        (("failed: no such file",), 12, "failed: no…"),
        (("training",), 7, ""),
        ((), 7, ""),
    ],
)
def test_parts_stay_whole_and_the_first_is_cut_at_a_word(parts, width, found):
    assert shortened(parts, width) == found


def test_a_percentage_in_a_log_is_of_what_is_done(monkeypatch):
    monkeypatch.setattr("flows.console._LOG_EVERY_SECONDS", -1.0)
    out = io.StringIO()
    console = Console(file=out)
    played = {"message": "window-open-v3", "values": {"success_rate": 1.0}}
    console.observe(StageStarted("evaluate"))
    console.observe(StageProgress("evaluate", {"done": 0, "total": 12}))
    console.observe(StageProgress("evaluate", {"done": 3, "total": 12, **played}))
    assert out.getvalue().splitlines() == [
        "evaluate: starts",
        "evaluate: 0 % done",
        "evaluate: 25 % done, window-open-v3 success_rate 1",
    ]


def test_what_was_cancelled_did_not_fail(monkeypatch):
    cancelled = StageFailedEvent("llm", "stage 'llm' was cancelled", cancelled=True)
    out = io.StringIO()
    Console(file=out).observe(cancelled)
    assert out.getvalue() == "llm: cancelled\n"
    (row,) = _frame(monkeypatch, 80, [StageStarted("llm"), cancelled])
    assert row == "llm | 0 % 0:00:00 cancelled"
