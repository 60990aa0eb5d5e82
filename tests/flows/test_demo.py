"""The whole graph with real stages at a tenth of the work: minutes, so only in `make test-all`."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow("the demo with real stages, at a tenth of its work"),
    pytest.mark.timeout(1500),
]

LLM_CHANGE = ("-o", "llm.training.optimizer.lr=5e-4")
VLA_CHANGE = (
    *("-o", "vla.training.steps=40", "-o", "vla.resources.checkpoint_every_steps=5"),
    *("--only", "vla"),
)


def command(*arguments):
    return [sys.executable, "-m", "flows.cli", *arguments, "--json"]


def foundry(home, *arguments):
    done = subprocess.run(
        command(*arguments),
        capture_output=True,
        text=True,
        timeout=1200,
        env=os.environ | {"FOUNDRY_HOME": str(home)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def actions(result):
    return {stage["name"]: stage["action"] for stage in result["stages"]}


def artifact_of(home, result, name):
    """(key, content digest, metrics) of a stage's artifact."""
    stage = next(s for s in result["stages"] if s["name"] == name)
    manifest = next((home / "store").glob(f"*/{stage['key']}*/artifact.json"))
    found = json.loads(manifest.read_text())
    return stage["key"], found["content"], found["metrics"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(home, result) of one run of demo-fast."""
    home = tmp_path_factory.mktemp("home")
    result = foundry(home, "run", "demo-fast")
    assert result["status"] == "succeeded"
    assert set(actions(result).values()) == {"run"}
    return home, result


def test_one_and_four_workers_give_the_same_bytes_and_downstream_is_reused(finished):
    home, first = finished
    forced = ("--force", "captions", "--force", "robot", "--force", "text")
    workers = [f"{stage}.resources.cpus=4" for stage in ("captions", "robot", "text")]
    options = [part for path in workers for part in ("-o", path)]
    second = foundry(home, "run", "demo-fast", *forced, *options)
    ran = {name for name, action in actions(second).items() if action == "run"}
    assert ran == {"captions", "robot", "text"}
    for name in ran:
        assert artifact_of(home, first, name)[1] == artifact_of(home, second, name)[1]


def test_the_cascade_re_runs_exactly_what_depends_on_the_language_model(finished):
    home, first = finished
    assert set(actions(foundry(home, "plan", "demo-fast")).values()) == {"reuse"}

    cadence = foundry(home, "plan", "demo-fast", "-o", "llm.resources.log_every=3")
    assert set(actions(cadence).values()) == {"reuse"}

    expected = {
        "llm", "exam_llm", "vlm", "exam_vlm", "vla", "vla_blind", "vla_untrained",
        "evaluate", "evaluate_blind", "evaluate_untrained", "compare",
    }  # fmt: skip
    planned = foundry(home, "plan", "demo-fast", *LLM_CHANGE)
    assert {name for name, action in actions(planned).items() if action == "run"} == expected
    by_name = {stage["name"]: stage for stage in planned["stages"]}
    assert by_name["llm"]["reasons"][0]["path"] == "llm.training.optimizer.lr"
    assert by_name["compare"]["reasons"][0]["upstream"] == "llm"

    second = actions(foundry(home, "run", "demo-fast", *LLM_CHANGE))
    reused = {name for name, action in second.items() if action == "reuse"}
    # An evaluation or comparison may come out equal and stop the cascade; conversions never run.
    data = {"demos", "scenes", "tokenizer", "text", "captions", "robot", "stats"}
    assert data | {"evaluate_still"} <= reused
    query = "select stage, llm_loss, caption_loss, n from stage_quality where run_id = '{}'"
    rows = foundry(home, "lineage", "sql", query.format(first["run_id"]))
    assert {row["stage"] for row in rows} == {"evaluate", "evaluate_blind", "evaluate_untrained"}
    assert all(row["llm_loss"] > 0 and row["caption_loss"] > 0 and row["n"] == 4 for row in rows)
    assert {"llm", "vlm", "vla"} <= set(second) - reused

    again = foundry(home, "run", "demo-fast")
    assert set(actions(again).values()) == {"reuse"}
    report = foundry(home, "report", first["run_id"])["report"]
    assert "95 % interval" in Path(report).read_text()


def test_training_killed_in_the_middle_resumes_to_the_same_bytes(finished, tmp_path):
    home, _ = finished
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    for copy in (undisturbed, killed):
        shutil.copytree(home, copy, symlinks=True)
    whole = foundry(undisturbed, "run", "demo-fast", *VLA_CHANGE)
    key, content, metrics = artifact_of(undisturbed, whole, "vla")
    assert metrics["resumed_from_step"] == 0

    run = subprocess.Popen(
        command("run", "demo-fast", *VLA_CHANGE),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"FOUNDRY_HOME": str(killed)},
    )
    scratch = killed / "store" / "work" / key / "scratch"
    deadline = time.monotonic() + 300
    while not any(int(p.name[5:]) >= 15 for p in scratch.rglob("step_*")):
        assert run.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()

    resumed = foundry(killed, "run", "demo-fast", *VLA_CHANGE)
    assert actions(resumed)["vlm"] == "reuse"
    again_key, again_content, again = artifact_of(killed, resumed, "vla")
    assert again["resumed_from_step"] >= 15
    assert (again_key, again_content) == (key, content)
