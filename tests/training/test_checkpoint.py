import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from training_toy import toy_trainer, weights

from foundry_core.training.checkpoint import CheckpointFolder
from foundry_core.training.distributed import World
from foundry_core.training.layout import read_parts
from foundry_core.training.resume import agreed_checkpoint
from foundry_core.training.saving import Saver


def state(step):
    return {"w": torch.full((3,), step / 3), "n": torch.tensor(float(step))}


def save(root, *steps):
    saver = Saver(CheckpointFolder(root), state(0), World())
    for step in steps:
        saver.save(step, state(step), {"x": 0.1})
    saver.finish()


def latest(root):
    return agreed_checkpoint(CheckpointFolder(root), World())


def test_the_last_two_are_kept_and_the_newest_is_read(tmp_path):
    save(tmp_path, 1, 2, 3)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step_000000002", "step_000000003"]
    found = latest(tmp_path)
    assert (found.step, found.scalars) == (3, {"x": 0.1})
    read = state(0)
    read_parts(read, found.layout, found.files)
    assert torch.equal(read["w"], torch.full((3,), 1.0)) and read["n"] == 3


@pytest.mark.parametrize(
    "damage", ["truncate", "flip", "no_shard", "no_state", "bad_json", "gap", "odd"]
)
def test_a_torn_checkpoint_falls_back_to_the_previous(tmp_path, damage, caplog):
    save(tmp_path, 1, 2)
    newest = tmp_path / "step_000000002"
    shard, described = newest / "shard_00000.safetensors", newest / "state.json"
    data = bytearray(shard.read_bytes())
    if damage == "truncate":
        shard.write_bytes(data[:-4])
    elif damage == "flip":
        data[-1] ^= 1
        shard.write_bytes(data)
    elif damage == "no_shard":
        shard.unlink()
    elif damage == "no_state":
        described.unlink()
    elif damage == "bad_json":
        described.write_text("{")
    elif damage == "gap":
        document = json.loads(described.read_text())
        document["tensors"]["w"]["chunks"][0][2] = [2]
        described.write_text(json.dumps(document))
    else:
        document = json.loads(described.read_text())
        document["tensors"]["w"]["dtype"] = "__reduce__"
        described.write_text(json.dumps(document))
    assert latest(tmp_path).step == 1
    assert "step_000000002" in caplog.text
    assert not newest.exists()


def test_nothing_to_read_and_leftovers_of_a_kill(tmp_path):
    (tmp_path / ".building_1").mkdir()
    assert latest(tmp_path) is None
    assert not list(tmp_path.iterdir())


class HeldFolder(CheckpointFolder):
    """Whose shards are whole only when the test lets them."""

    gate = threading.Event()

    def written(self, name, shard):
        assert self.gate.wait(30)


def test_what_is_saved_is_the_state_at_the_call_and_one_save_at_a_time(tmp_path):
    place = HeldFolder(tmp_path)
    place.gate.clear()
    tensors = state(1)
    saver = Saver(place, tensors, World())
    saver.save(1, tensors, {})
    tensors["w"].fill_(-1)
    saver.commit()
    assert saver.busy and not list(tmp_path.glob("step_*"))
    place.gate.set()
    saver.save(2, tensors, {})  # waits for the first
    assert [p.name for p in tmp_path.glob("step_*")] == ["step_000000001"]
    found = place.load(1)
    read = state(0)
    read_parts(read, found.layout, found.files)
    assert torch.equal(read["w"], state(1)["w"])
    saver.finish()
    found = place.load(2)
    read_parts(read, found.layout, found.files)
    assert torch.equal(read["w"], torch.full((3,), -1.0))


def test_scalars_are_those_at_the_call(tmp_path):
    place, scalars = HeldFolder(tmp_path), {"sums": {"loss": 0.5}}
    place.gate.clear()
    saver = Saver(place, state(1), World())
    saver.save(1, state(1), scalars)
    scalars["sums"]["loss"] = 7.0
    place.gate.set()
    saver.finish()
    assert place.load(1).scalars == {"sums": {"loss": 0.5}}


class FullDisk(CheckpointFolder):
    def written(self, name, shard):
        raise OSError(28, "No space left on device")


def test_what_a_thread_could_not_write_is_raised_at_the_commit(tmp_path):
    saver = Saver(FullDisk(tmp_path), state(1), World())
    saver.save(1, state(1), {})
    with pytest.raises(OSError, match="No space left"):
        saver.finish()
    assert not list(tmp_path.glob("step_*"))


def test_a_checkpoint_holds_no_pickle(tmp_path):
    save(tmp_path, 1)
    (folder,) = tmp_path.iterdir()
    assert sorted(p.name for p in folder.iterdir()) == ["shard_00000.safetensors", "state.json"]
    json.loads((folder / "state.json").read_text())
    assert set(load_file(folder / "shard_00000.safetensors")) == {"w", "n"}


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
    assert latest(checkpoints).step > 0
    resumed = toy_trainer(tmp_path, steps=400)
    result = resumed.train()
    straight = toy_trainer(tmp_path / "straight", steps=400)
    straight.train()
    assert 0 < result.resumed_from < 400
    assert all(torch.equal(weights(resumed)[n], w) for n, w in weights(straight).items())
    metrics = Path("records") / "metrics.jsonl"
    assert (tmp_path / metrics).read_bytes() == (tmp_path / "straight" / metrics).read_bytes()
