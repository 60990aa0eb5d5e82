"""Several workers in Ray Train: the same curve as one, also when a worker is killed."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close
from training_stages import Bench, curve

from foundry_core.errors import FoundryError

pytestmark = pytest.mark.slow("trainings on Ray")
STEPS = {"steps": 30, "schedule": {"warmup": 2}, "ema": {"kind": "fixed", "decay": 0.9}}


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Bench:
    return Bench(tmp_path_factory.mktemp("ray"))


def llm(bench: Bench, name: str, training: dict = STEPS, **resources):
    from training_stages import LANGUAGE, TEXT

    recipe = {"model": LANGUAGE, "data": {"text": TEXT}, "training": training}
    return bench.stage(
        name,
        "train_llm",
        recipe,
        {"text": "text", "tokenizer": "tokenizer"},
        resources={"log_every": 1, **resources},
    )


def assert_same_run(one: Path, other: Path, rel: float = 1e-4) -> None:
    """rel: differences of the last bit grow with the steps."""
    for a, b in zip(curve(one), curve(other), strict=True):
        assert b == pytest.approx(a, rel=rel)
    theirs = load_file(other / "model.safetensors")
    for name, weight in load_file(one / "model.safetensors").items():
        assert_close(theirs[name], weight, atol=rel, rtol=10 * rel)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_workers_give_the_curve_of_one(bench, strategy):
    alone, _ = llm(bench, f"alone_{strategy}")
    both, metrics = llm(bench, f"both_{strategy}", num_workers=2, strategy=strategy)
    assert metrics["steps"] == 30
    assert_same_run(alone, both)


def test_a_mistake_in_a_worker_reaches_the_user_as_such(bench):
    with pytest.raises(FoundryError, match="text batch of 8 does not divide among 3 workers"):
        llm(bench, "odd", num_workers=3)


def test_a_killed_worker_restarts_the_group_from_the_last_checkpoint(bench):
    training = {**STEPS, "steps": 200}
    alone, _ = llm(bench, "alone_killed", training)
    killed: list[int] = []
    stop = threading.Event()
    checkpoints = bench.root / "both_killed.scratch" / "checkpoints"
    assassin = threading.Thread(target=_kill_one_worker, args=(checkpoints, killed, stop))
    assassin.start()
    try:
        both, metrics = llm(
            bench, "both_killed", training, num_workers=2, checkpoint_every_steps=10
        )
    finally:
        stop.set()
        assassin.join()
    assert killed and metrics["resumed_from_step"] > 0
    assert_same_run(alone, both, rel=2e-3)


_STOPPED = """
import sys
from pathlib import Path
from test_train_ray import STEPS, Bench, llm

if __name__ == "__main__":
    llm(Bench(Path(sys.argv[1])), "stopped", {**STEPS, "steps": 4000}, num_workers=2,
        checkpoint_every_seconds=None)
"""


def test_sigterm_to_the_launching_process_saves_and_ends_the_group(tmp_path):
    """No save is due before: what lies there afterwards is what the signal saved."""
    child = subprocess.Popen(
        [sys.executable, "-c", _STOPPED, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=Path(__file__).parent,
    )
    scratch = tmp_path / "stopped.scratch"
    try:
        wait_for(
            lambda: (
                (scratch / "metrics.jsonl").exists() and (scratch / "metrics.jsonl").stat().st_size
            )
        )
        os.kill(child.pid, signal.SIGTERM)
        assert child.wait(120) == 128 + signal.SIGTERM
    finally:
        child.kill()
    (saved,) = (scratch / "checkpoints").glob("step_*")
    assert len(list(saved.glob("shard_*"))) == 2
    assert 0 < int(saved.name.removeprefix("step_")) < 4000


def wait_for(true, seconds: float = 240.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _kill_one_worker(checkpoints: Path, killed: list[int], stop: threading.Event) -> None:
    while not stop.wait(0.02):
        workers = [pid for pid in _descendants(os.getpid()) if "TrainWorker" in _name(pid)]
        if len(workers) == 2 and len(list(checkpoints.glob("step_*"))) == 2:
            os.kill(workers[0], signal.SIGKILL)
            killed.append(workers[0])
            return


def _descendants(root: int) -> list[int]:
    parents = {}
    for entry in Path("/proc").iterdir():
        try:
            parents[int(entry.name)] = int(
                (entry / "stat").read_text().rsplit(")", 1)[1].split()[1]
            )
        except (ValueError, OSError):
            continue
    found, pending = [], [root]
    while pending:
        parent = pending.pop()
        children = [pid for pid, up in parents.items() if up == parent]
        found += children
        pending += children
    return found


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""
