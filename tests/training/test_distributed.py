"""Two gloo processes against one: the same curve and weights, whatever wraps the model."""

import json
import multiprocessing
import os
import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from training_toy import toy_batches, toy_trainer, weights

from foundry_core.errors import FoundryError
from foundry_core.training.distributed import World, full, local_batch_size


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _rank(rank: int, size: int, port: int, folder: str, changes: dict) -> None:
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=size)
    world = World(rank=rank, size=size)
    trainer = toy_trainer(
        Path(folder), world=world, batches=lambda first: toy_batches(first, world), **changes
    )
    trainer.train()
    state = {name: full(w) for name, w in weights(trainer).items()}
    if rank == 0:
        torch.save(state, Path(folder) / "weights.pt")
    dist.barrier()  # who leaves first would break the other one's threads
    dist.destroy_process_group()


def _run(folder: Path, size: int = 2, **changes) -> dict[str, torch.Tensor]:
    folder.mkdir(exist_ok=True)
    context = multiprocessing.get_context("spawn")
    port = _free_port()
    processes = [
        context.Process(target=_rank, args=(rank, size, port, str(folder), changes))
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * size
    return torch.load(folder / "weights.pt", weights_only=True)


def _curve(folder: Path) -> list[dict]:
    return [json.loads(x) for x in (folder / "records/metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_ranks_equal_one(tmp_path, strategy):
    """With micro-batches inside, and a checkpoint in the middle that a second start resumes."""
    alone = toy_trainer(tmp_path / "alone")
    alone.train()
    resources = {"strategy": strategy, "micro_batch": 3, "checkpoint_every_steps": 8}
    both = _run(tmp_path / "both", resources=resources)
    for name, value in weights(alone).items():
        torch.testing.assert_close(both[name], value, atol=1e-6, rtol=1e-4)
    for one, two in zip(_curve(tmp_path / "alone"), _curve(tmp_path / "both"), strict=True):
        assert two == pytest.approx(one, rel=1e-5)
    (tmp_path / "both" / "weights.pt").unlink()
    resumed = _run(tmp_path / "both", resources=resources)
    assert all(torch.equal(resumed[name], both[name]) for name in both)
    timings = json.loads((tmp_path / "both/records/timings.json").read_text())
    assert timings["resumed_from_step"] == 16


@pytest.mark.slow
def test_copies_of_shards_equal_one(tmp_path):
    """Two by two: shards within a pair, copies of them between the pairs."""
    alone = toy_trainer(tmp_path / "alone")
    alone.train()
    resources = {"strategy": "hsdp", "shard_size": 2, "num_workers": 4}
    four = _run(tmp_path / "four", size=4, resources=resources)
    for name, value in weights(alone).items():
        torch.testing.assert_close(four[name], value, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_half_weights_round_the_first_losses_only_a_little(tmp_path):
    """Weights are not compared: Adam's first steps turn a flipped sign into twice the rate."""
    toy_trainer(tmp_path / "whole", steps=4).train()
    resources = {"strategy": "fsdp"}
    _run(tmp_path / "half", steps=4, training={"precision": "bf16_weights"}, resources=resources)
    for one, two in zip(_curve(tmp_path / "whole"), _curve(tmp_path / "half"), strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=2e-2)
        assert two["loss"] != one["loss"]


def test_a_batch_that_does_not_divide_among_the_workers():
    assert local_batch_size(12, World(rank=0, size=3), "text") == 4
    with pytest.raises(FoundryError, match="text batch of 10 does not divide among 3"):
        local_batch_size(10, World(rank=0, size=3), "text")
