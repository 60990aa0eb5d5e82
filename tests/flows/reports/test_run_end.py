"""How a run with an evaluation ends: its rate, its interval, and a report that is there."""

import pytest

from flows.cli.commands.run import summarise
from flows.reports import run_report
from foundry_core.errors import FoundryError

COUNTS = {"n": 2, "successes": 0, "crashed": 0, "pending": 0}


def result(action, **metrics):
    attempt = "a1" if action == "run" else None
    row = {"kind": "evaluate", "key": "k", "action": action, "attempt": attempt, "error": None}
    return {
        "run_id": "r",
        "status": "succeeded",
        "seconds": 1.0,
        "stages": [row | {"name": "evaluate", "artifact": None}, row | {"name": "compare"}],
        "metrics": {f"evaluate.{name}": value for name, value in metrics.items()},
    }


@pytest.fixture
def written(monkeypatch, tmp_path):
    """The runs whose report was asked for."""
    asked = []

    def write(run_id):
        asked.append(run_id)
        return tmp_path / "report.html"

    monkeypatch.setattr(run_report, "write_run_report", write)
    return asked


def test_an_evaluation_that_was_built_ends_with_its_rate_and_the_report(written, capsys, tmp_path):
    summarise(result("run", **COUNTS, success_rate=0.0))
    assert capsys.readouterr().out.splitlines()[3:] == [
        "  evaluate: success 0 of 2, 0.0 % (95 % interval 0.0 to 84.2)",
        f"  report: {tmp_path / 'report.html'}",
    ]
    assert written == ["r"]
    summarise(result("run", **COUNTS), report=False)
    assert written == ["r"] and "report:" not in capsys.readouterr().out


def test_where_nothing_was_built_the_rate_is_said_and_no_report_is_written(written, capsys):
    summarise(result("reuse", **COUNTS, success_rate=0.0))
    assert capsys.readouterr().out.splitlines()[3:] == [
        "  evaluate: success 0 of 2, 0.0 % (95 % interval 0.0 to 84.2)",
        "  report: foundry report r",
    ]
    assert not written


def test_a_run_without_one_writes_no_report(written, capsys):
    summarise(result("reuse", loss=0.1))
    assert "report" not in capsys.readouterr().out and not written


def test_a_report_that_cannot_be_written_spoils_no_run(monkeypatch, capsys):
    def fails(run_id):
        raise FoundryError("no index")

    monkeypatch.setattr(run_report, "write_run_report", fails)
    summarise(result("run", **COUNTS))
    assert "  report: not written (no index); foundry report r\n" in capsys.readouterr().out
