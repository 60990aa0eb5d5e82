"""The whole graph with real stages at a tenth of the work: minutes, so only in `make test-all`."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


def foundry(*arguments):
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", *arguments, "--json"],
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def actions(result):
    return {stage["name"]: stage["action"] for stage in result["stages"]}


def test_the_cascade_re_runs_exactly_what_depends_on_the_language_model(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path))
    first = foundry("run", "demo-fast")
    assert first["status"] == "succeeded"
    assert set(actions(first).values()) == {"run"}
    assert set(actions(foundry("plan", "demo-fast")).values()) == {"reuse"}

    cadence = foundry("plan", "demo-fast", "-o", "llm.resources.log_every=3")
    assert set(actions(cadence).values()) == {"reuse"}

    change = ("-o", "llm.training.optimizer.lr=5e-4")
    expected = {
        "llm", "vlm", "vla", "vla_blind", "vla_untrained",
        "evaluate", "evaluate_blind", "evaluate_untrained", "compare",
    }  # fmt: skip
    planned = foundry("plan", "demo-fast", *change)
    assert {name for name, action in actions(planned).items() if action == "run"} == expected
    by_name = {stage["name"]: stage for stage in planned["stages"]}
    assert by_name["llm"]["reasons"][0]["path"] == "llm.training.optimizer.lr"
    assert by_name["compare"]["reasons"][0]["upstream"] == "llm"

    second = actions(foundry("run", "demo-fast", *change))
    reused = {name for name, action in second.items() if action == "reuse"}
    # An evaluation or comparison may come out equal and stop the cascade; conversions never run.
    assert {"demos", "scenes", "tokenizer", "text", "captions", "robot", "stats"} <= reused
    assert {"llm", "vlm", "vla"} <= set(second) - reused

    again = foundry("run", "demo-fast")
    assert set(actions(again).values()) == {"reuse"}
    report = foundry("report", first["run_id"])["report"]
    assert "95 % interval" in Path(report).read_text()
