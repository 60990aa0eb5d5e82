"""Finished trainings of all kinds that are run again with a larger budget: `foundry run`, then more
steps. What comes out has the bytes of a straight run, however it came about."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from budgets import Budgets, equal_files
from safetensors.torch import load_file
from torch.testing import assert_close
from training_stages import Bench

from foundry_core.store.trunks import trunks_of
from tests.s3 import s3_server, use_s3

pytestmark = [
    pytest.mark.slow("trains every kind of model several times"),
    pytest.mark.timeout(900),
]
# Windows of the log have three steps: the smaller budget's end cuts one.
SMALL, LARGE, BRANCH = 8, 20, 6
COMPARED = ("model.safetensors", "raw.safetensors", "records/metrics.jsonl")


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture
def at(tmp_path, monkeypatch):
    """Goes to a home by its name."""
    monkeypatch.delenv("FOUNDRY_STORE", raising=False)

    def go(name: str) -> None:
        monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / name))

    go("home")
    return go


@pytest.mark.parametrize("kind", ["train_llm", "train_vlm", "train_vla"])
def test_more_steps_of_every_kind_are_a_straight_run(kind, bench, at, tmp_path):
    budgets = Budgets(tmp_path, bench, kind)
    small, _ = budgets.run(SMALL)
    large, there = budgets.run(LARGE)
    assert large.metrics["continued_from_step"] == BRANCH
    assert large.provenance["continued"]["key"] == small.key
    at("straight")
    alone, straight = budgets.run(LARGE)
    assert alone.metrics["continued_from_step"] == 0
    assert (large.key, large.content) == (alone.key, alone.content)
    assert equal_files(there, straight, *COMPARED)
    # And what it leaves for more steps, too.
    (left,) = trunks_of(large)
    assert [left] == trunks_of(alone)
    trunk = [tmp_path / home / "store/trunk" / left for home in ("home", "straight")]
    assert equal_files(*trunk, "state.json", "shard_00000.safetensors")


@pytest.mark.parametrize(
    ("schedule", "branch"),
    [
        ({"kind": "constant", "warmup": 2}, SMALL),
        ({"kind": "cosine", "warmup": 2, "length": 30}, SMALL),
        ({"kind": "cosine", "warmup": 2}, 0),
    ],
)
def test_schedules_share_what_they_can(schedule, branch, bench, at, tmp_path):
    budgets = Budgets(tmp_path, bench, "train_llm")
    budgets.run(SMALL, training__schedule=schedule)
    large, there = budgets.run(LARGE, training__schedule=schedule)
    assert large.metrics["continued_from_step"] == branch
    at("straight")
    alone, straight = budgets.run(LARGE, training__schedule=schedule)
    assert large.content == alone.content and equal_files(there, straight, *COMPARED)


def test_tokens_and_samples_are_steps(bench, at, tmp_path):
    """Rows of 15 tokens, 8 a step."""
    budgets = Budgets(tmp_path, bench, "train_llm")
    budgets.run(SMALL)
    for unit, value in (("tokens", LARGE * 8 * 15), ("samples", LARGE * 8)):
        changes = {"training__steps": None, f"training__{unit}": value}
        row = budgets.plan(LARGE, **changes).plan.stages["model"]
        assert (row.continues.step, row.continues.total) == (BRANCH, LARGE)
    large, _ = budgets.run(LARGE, **changes)
    assert large.metrics["continued_from_step"] == BRANCH


def command(budgets: Budgets, name: str, steps: int) -> dict:
    """`foundry <name>` in a process of its own, as JSON."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "flows.cli", name, str(budgets.path), "--json"),
            *("-o", f"model.training.steps={steps}"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout) | {"said": done.stderr}


def test_the_command_line_says_and_does_it(bench, at, tmp_path):
    budgets = Budgets(tmp_path, bench, "train_llm")
    rows = {row["name"]: row for row in command(budgets, "run", SMALL)["stages"]}
    plan = {row["name"]: row for row in command(budgets, "plan", LARGE)["stages"]}
    assert plan["model"]["action"] == "run"
    assert plan["model"]["continues"]["key"] == rows["model"]["key"]
    assert plan["model"]["continues"]["step"] == BRANCH
    result = command(budgets, "run", LARGE)
    assert result["metrics"]["model.continued_from_step"] == BRANCH
    assert f"continued {rows['model']['key'][:12]} from step {BRANCH}" in result["said"]
    assert "which its key does not know" not in result["said"]
    at("straight")
    alone, straight = budgets.run(LARGE)
    assert equal_files(tmp_path / "home/store/train_llm" / alone.key, straight, *COMPARED)


_CHILD = """
import sys
from pathlib import Path
from budgets import Budgets

budgets = Budgets.__new__(Budgets)
budgets.path = Path(sys.argv[1])
budgets.run(int(sys.argv[2]), resources__checkpoint_every_steps=3)
"""


@pytest.mark.parametrize("kind", ["train_llm", "train_vla"])
def test_a_kill_while_going_on_resumes_right(kind, bench, at, tmp_path):
    steps = 200
    budgets = Budgets(tmp_path, bench, kind)
    small, _ = budgets.run(SMALL)
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(budgets.path), str(steps)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=Path(__file__).parent,
    )
    key = budgets.plan(steps).plan.stages["model"].key
    checkpoints = tmp_path / "home/store/work" / key / "scratch/checkpoints"
    deadline = time.monotonic() + 240
    while len(list(checkpoints.glob("step_*"))) < 2:
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.001)
    child.send_signal(signal.SIGKILL)
    assert child.wait(60) == -signal.SIGKILL
    time.sleep(0.5)  # the stage's process goes with it
    large, there = budgets.run(steps, resources__checkpoint_every_steps=3)
    assert BRANCH < large.metrics["resumed_from_step"] < steps
    assert large.metrics["continued_from_step"] == BRANCH
    assert large.provenance["continued"]["key"] == small.key
    at("straight")
    alone, straight = budgets.run(steps)
    assert large.content == alone.content and equal_files(there, straight, *COMPARED)
    assert trunks_of(large) == trunks_of(alone)


def test_a_torn_shard_is_told_of_and_training_begins_at_zero(bench, at, tmp_path, monkeypatch):
    """As on a disk that loses bits: no stat shows it, the stage's own look at the digests does."""
    budgets = Budgets(tmp_path, bench, "train_llm")
    small, _ = budgets.run(SMALL)
    (key,) = trunks_of(small)
    shard = tmp_path / "home/store/trunk" / key / "shard_00000.safetensors"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    with monkeypatch.context() as patch:
        patch.setattr("foundry_core.store.verified.VerifiedDigests.check", lambda *a, **k: "")
        large, there = budgets.run(LARGE)
    assert large.metrics["continued_from_step"] == 0
    assert "is not used: it is damaged" in large.provenance["continued"]["refused"]
    at("straight")
    alone, straight = budgets.run(LARGE)
    assert large.content == alone.content and equal_files(there, straight, *COMPARED)


def test_a_store_in_a_bucket_serves_another_host(bench, at, tmp_path, monkeypatch):
    with s3_server() as endpoint:
        uri = use_s3(monkeypatch, endpoint)
        monkeypatch.setenv("FOUNDRY_STORE", uri)
        budgets = Budgets(tmp_path, bench, "train_llm", bucket=f"{uri.rpartition('/')[0]}/data")
        small, _ = budgets.run(SMALL)
        at("another")  # home: nothing of it is cached
        row = budgets.plan(LARGE).plan.stages["model"]
        assert (row.continues.key, row.continues.step) == (small.key, BRANCH)
        large, there = budgets.run(LARGE)
        assert large.metrics["continued_from_step"] == BRANCH
        monkeypatch.delenv("FOUNDRY_STORE")
        at("straight")
        alone, straight = Budgets(tmp_path / "local", bench, "train_llm").run(LARGE)
        assert large.content == alone.content and equal_files(there, straight, *COMPARED)


def test_other_numbers_of_workers_are_close_and_asked_for(bench, at, tmp_path):
    """What one worker left, two go on from; what two left, two go on from to the bit."""
    budgets = Budgets(tmp_path, bench, "train_llm", strategy="fsdp")
    small, _ = budgets.run(SMALL)
    both = {"resources__num_workers": 2}
    row = budgets.plan(LARGE, **both).plan.stages["model"]
    assert row.continues is None
    assert "built with" in row.notes[0] and "workers none, now 2" in row.notes[0]
    close, there = budgets.run(LARGE, resources__extend="close", **both)
    assert close.metrics["continued_from_step"] == BRANCH
    assert "workers none, now 2" in close.provenance["continued"]["differs"]
    at("both")
    budgets.run(SMALL, **both)
    large, here = budgets.run(LARGE, **both)
    assert large.metrics["continued_from_step"] == BRANCH
    assert len(list(Path(tmp_path / "both/store/trunk").glob("*/shard_*"))) == 4
    at("straight")
    alone, straight = budgets.run(LARGE, **both)
    assert large.content == alone.content and equal_files(here, straight, *COMPARED)
    assert (close.key, close.seed) == (alone.key, small.seed)
    theirs = load_file(there / "model.safetensors")
    for name, weight in load_file(straight / "model.safetensors").items():
        assert_close(theirs[name], weight, atol=1e-4, rtol=1e-3)
