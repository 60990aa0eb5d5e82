"""A run without Prefect: branches at the same time, failures kept to what needs them."""

import os
import subprocess
import sys
import threading

import pytest

from flows.runs.engine import PipelineRun
from flows.runs.local import carried_out, walk_in_threads
from foundry_core.execution.job import Interrupted
from foundry_core.execution.python import python_command
from tests.runs import prepared
from tests.support import WORDS, stage_alone


def run(under_way, walk=None):
    return carried_out(under_way, threading.Lock(), walk or (lambda: walk_in_threads(under_way)))


def actions(result):
    return {stage["name"]: stage["action"] for stage in result["stages"]}


def test_branches_work_at_the_same_time(small_home):
    under_way = PipelineRun(prepared())
    both = threading.Barrier(2, timeout=60)
    stage = under_way.stage

    def meeting(name):
        if name in ("first", "second"):
            both.wait()
        return stage(name)

    under_way.stage = meeting
    result = run(under_way)
    assert result["status"] == "succeeded"
    assert set(actions(result).values()) == {"run"}
    again = run(PipelineRun(prepared()))
    assert set(actions(again).values()) == {"reuse"}


def test_a_failed_stage_stops_what_needs_it_alone(small_home):
    under_way = PipelineRun(prepared())
    stage = under_way.stage

    def failing(name):
        if name == "second":
            raise OSError("no such luck")
        return stage(name)

    under_way.stage = failing
    result = run(under_way)
    assert result["status"] == "failed"
    assert under_way.outcomes.keys() == {"first", "model"}
    assert under_way.failures == {"second": "no such luck"}


def test_an_interruption_is_recorded_and_goes_on(small_home):
    under_way = PipelineRun(prepared())

    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as raised:
        run(under_way, interrupted)
    (note,) = raised.value.__notes__
    assert note.startswith(f"words {under_way.run_id}: cancelled")
    assert not list((small_home / "processes").glob("*"))


def test_what_waits_ends_with_an_interruption(small_home, monkeypatch):
    """Ctrl-C while two stages work: both are told, none that waits begins."""
    seen = []
    under_way = PipelineRun(prepared(), observe=seen.append)
    begun = threading.Barrier(3, timeout=60)

    def stage(name):
        begun.wait()
        assert under_way.cancelled.wait(60)
        raise Interrupted(name)

    under_way.stage = stage
    submit = under_way.walk

    def walk(submit_stage):
        def submitted(run, name, needed):
            pending = submit_stage(run, name, needed)
            if name == "second":
                begun.wait()
                raise KeyboardInterrupt
            return pending

        submit(submitted)

    monkeypatch.setattr(under_way, "walk", walk)
    with pytest.raises(KeyboardInterrupt):
        run(under_way)
    assert under_way.failures == {"first": "first", "second": "second"}
    assert [event.cancelled for event in seen] == [True, True]


def environment(tmp_path):
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    return kept | {"FOUNDRY_HOME": str(tmp_path / "home"), "FOUNDRY_KINDS": "tests.kinds"}


def test_a_run_without_a_server_does_not_load_prefect(tmp_path):
    code = (
        "import sys; from flows.cli import main; code = main(sys.argv[1:]);"
        "sys.exit(code or (3 if 'prefect' in sys.modules else 0))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "run", str(WORDS), "--only", "first"],
        env=environment(tmp_path),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_four_runs_at_once_on_a_new_home(tmp_path):
    pipeline = stage_alone(tmp_path, "emit", word="one", lines=3)
    runs = [
        subprocess.Popen(
            python_command("flows.cli", "run", str(pipeline)),
            env=environment(tmp_path),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(4)
    ]
    said = [one.communicate(timeout=240)[0] for one in runs]
    assert [one.returncode for one in runs] == [0] * 4, said
    assert sum("built:  emit" in text for text in said) == 1
