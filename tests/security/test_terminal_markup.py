"""Texts that look like the terminal library's markup are shown as they are, and stop nothing."""

import io

from flows.console import Console, plan_table
from flows.runs.events import StageFailedEvent, StageProgress, StageStarted
from flows.terminal import stdout
from foundry_core.lineage.render import table_of
from foundry_core.pipeline.plan import Plan, StagePlan
from foundry_core.pipeline.reasons import Reason

TEXT = "no [/closing] of [red]"


def test_a_plan_shows_values_as_they_are(capsys):
    reason = Reason(category="CONFIG", path="a.b", old=TEXT, new="[/]")
    row = StagePlan(name="a", kind="k", key="0" * 64, action="run", reasons=(reason,))
    plan = Plan(pipeline="p[x]", baseline="b[y]", stages={"a": row}, specs={})
    stdout().print(plan_table(plan))
    shown = capsys.readouterr().out
    assert TEXT in shown and "p[x] against b[y]" in shown


def test_progress_and_failures_show_texts_as_they_are(monkeypatch):
    monkeypatch.setattr("flows.console._LOG_EVERY_SECONDS", -1.0)
    out = io.StringIO()
    console = Console(file=out)
    console.observe(StageStarted("a"))
    console.observe(StageProgress("a", {"done": 1, "total": 2, "message": TEXT}))
    console.observe(StageFailedEvent("a", TEXT))
    assert out.getvalue().count(TEXT) == 2


def test_the_bars_of_a_terminal_show_texts_as_they_are(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    out = io.StringIO()
    console = Console(file=out)
    assert console._live
    with console:
        console.observe(StageStarted("a"))
        console.observe(StageProgress("a", {"done": 1, "total": 2, "message": TEXT}))
        console.observe(StageFailedEvent("a", TEXT))
    assert "no [/closing]" in out.getvalue()


def test_columns_of_a_query_are_shown_as_they_are(capsys):
    stdout().print(table_of([{TEXT: TEXT}]))
    assert capsys.readouterr().out.count(TEXT) == 2
