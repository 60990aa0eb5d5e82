"""Two gloo processes whose scratch folders differ: one step for both, or one error on both."""

import multiprocessing
import os
import shutil
import socket
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from training_toy import toy_batches, toy_trainer

from foundry_core.errors import FoundryError
from foundry_core.training.checkpoint import Checkpoint, save_checkpoint
from foundry_core.training.distributed import World
from foundry_core.training.resume import agreed_checkpoint

_SECONDS = 60


def _rank(rank: int, port: int, folders: list[str], strategy: str, results) -> None:
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=2, timeout=timedelta(seconds=_SECONDS))
    world = World(rank=rank, size=2)
    trainer = toy_trainer(
        Path(folders[rank]),
        world=world,
        batches=lambda first: toy_batches(first, world),
        resources={"strategy": strategy, "checkpoint_every_steps": 8},
    )
    try:
        results.put((rank, trainer.train().resumed_from))
    except FoundryError as error:
        results.put((rank, error.message))


def _both(folders: list[Path], strategy: str) -> dict[int, int | str]:
    """What each rank resumed from, or was told."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [
        context.Process(target=_rank, args=(rank, port, list(map(str, folders)), strategy, results))
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    try:
        return dict(results.get(timeout=2 * _SECONDS) for _ in processes)
    finally:
        for process in processes:
            process.kill()


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_stale_rank_is_heard_of(tmp_path, strategy):
    toy_trainer(tmp_path / "alone", resources={"checkpoint_every_steps": 8}).train()
    fresh, stale = tmp_path / "fresh", tmp_path / "stale"
    for folder in (fresh, stale):
        shutil.copytree(tmp_path / "alone", folder)
    newest = max(stale.rglob("checkpoints/step_*"))
    shutil.rmtree(newest)
    newest_common = int(max(stale.rglob("checkpoints/step_*")).name.removeprefix("step_"))
    assert _both([fresh, stale], strategy) == {0: newest_common, 1: newest_common}
    for path in stale.rglob("checkpoints/step_*"):
        shutil.rmtree(path)
    told = _both([fresh, stale], strategy)
    assert told[0] == told[1]
    assert "the ranks have no checkpoint in common" in told[0]
    assert "rank 1 none" in told[0]


def test_one_rank_alone_takes_the_newest_that_is_whole(tmp_path):
    assert agreed_checkpoint(tmp_path, World()) is None
    for step in (1, 2):
        save_checkpoint(tmp_path, Checkpoint(step=step, tensors={"w": torch.ones(1)}, scalars={}))
    (tmp_path / "step_000000002" / "tensors.safetensors").write_bytes(b"torn")
    assert agreed_checkpoint(tmp_path, World()).step == 1
