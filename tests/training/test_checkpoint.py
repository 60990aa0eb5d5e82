import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from training_toy import toy_trainer, weights

from foundry_core.training.checkpoint import Checkpoint, load_latest_checkpoint, save_checkpoint


def checkpoint(step):
    return Checkpoint(step=step, tensors={"w": torch.full((3,), step / 3)}, scalars={"x": 0.1})


def test_the_last_two_are_kept_and_the_newest_is_read(tmp_path):
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, checkpoint(step))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step_000000002", "step_000000003"]
    latest = load_latest_checkpoint(tmp_path)
    assert (latest.step, latest.scalars) == (3, {"x": 0.1})
    assert torch.equal(latest.tensors["w"], torch.full((3,), 1.0))


@pytest.mark.parametrize("damage", ["truncate", "flip", "no_state", "bad_json"])
def test_a_torn_checkpoint_falls_back_to_the_previous(tmp_path, damage, caplog):
    save_checkpoint(tmp_path, checkpoint(1))
    newest = save_checkpoint(tmp_path, checkpoint(2))
    tensors, state = newest / "tensors.safetensors", newest / "state.json"
    data = bytearray(tensors.read_bytes())
    if damage == "truncate":
        tensors.write_bytes(data[:-4])
    elif damage == "flip":
        data[-1] ^= 1
        tensors.write_bytes(data)
    elif damage == "no_state":
        state.unlink()
    else:
        state.write_text("{")
    assert load_latest_checkpoint(tmp_path).step == 1
    assert "step_000000002" in caplog.text


def test_nothing_to_read_and_leftovers_of_a_kill(tmp_path):
    (tmp_path / ".building_1").mkdir()
    assert load_latest_checkpoint(tmp_path) is None
    assert not list(tmp_path.iterdir())


_CHILD = """
import sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from training_toy import toy_trainer, toy_batches
def slow(first):
    for batch in toy_batches(first):
        time.sleep(0.002)
        yield batch
trainer = toy_trainer(Path(sys.argv[1]), steps=400, batches=slow,
                      resources={"checkpoint_every_steps": 5})
print("started", flush=True)
trainer.train()
"""


def test_kill_minus_nine_at_random_moments_then_bit_identical(tmp_path):
    """SIGKILLs wherever they fall: between steps, inside a save, inside a log write."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path])}
    checkpoints = tmp_path / "scratch" / "checkpoints"
    kills = 0
    for delay in (0.23, 0.11):
        child = subprocess.Popen(
            [sys.executable, "-c", _CHILD, str(tmp_path)],
            env=environment,
            cwd=Path(__file__).parent,
            stdout=subprocess.PIPE,
        )
        child.stdout.readline()
        deadline = time.monotonic() + 60
        while not list(checkpoints.glob("step_*")) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(delay)
        kills += child.poll() is None
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        child.stdout.close()
    assert kills >= 1
    assert load_latest_checkpoint(checkpoints).step > 0
    resumed = toy_trainer(tmp_path, steps=400)
    result = resumed.train()
    straight = toy_trainer(tmp_path / "straight", steps=400)
    straight.train()
    assert 0 < result.resumed_from < 400
    assert all(torch.equal(weights(resumed)[n], w) for n, w in weights(straight).items())
    metrics = Path("records") / "metrics.jsonl"
    assert (tmp_path / metrics).read_bytes() == (tmp_path / "straight" / metrics).read_bytes()
