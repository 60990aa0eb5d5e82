"""Two gloo processes that see different checkpoints: one step for both, or one error on both."""

import multiprocessing
import os
import shutil
import socket
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from foundry_core.errors import FoundryError
from foundry_core.training.checkpoint import CheckpointFolder
from foundry_core.training.distributed import World
from foundry_core.training.resume import agreed_checkpoint
from foundry_core.training.saving import Saver

_SECONDS = 60


def _agree(folder: Path, world: World) -> int:
    return agreed_checkpoint(CheckpointFolder(folder), world).step


def _begin(folder: Path, world: World) -> None:
    Saver(CheckpointFolder(folder), {"w": torch.ones(2)}, world)


def _fail(folder: Path, world: World) -> None:
    place = FullDisk(folder) if world.rank else CheckpointFolder(folder)
    saver = Saver(place, {"w": torch.ones(2), "v": torch.ones(2)}, world)
    saver.save(1, {"w": torch.ones(2), "v": torch.ones(2)}, {})
    saver.finish()


class FullDisk(CheckpointFolder):
    def written(self, name, shard):
        raise OSError(28, "No space left on device")


def _rank(rank: int, port: int, folders: list[str], job, results) -> None:
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=2, timeout=timedelta(seconds=_SECONDS))
    try:
        results.put((rank, job(Path(folders[rank]), World(rank=rank, size=2))))
    except (FoundryError, OSError) as error:
        results.put((rank, str(error)))
    dist.barrier()  # who leaves first would break the other one's collectives


def _both(folders: list[Path], job) -> dict[int, int | str]:
    """What each rank's job gave, or was told."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [
        context.Process(target=_rank, args=(rank, port, list(map(str, folders)), job, results))
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    try:
        return dict(results.get(timeout=2 * _SECONDS) for _ in processes)
    finally:
        for process in processes:
            process.join(_SECONDS)
            process.kill()


def _saved(root: Path, *steps: int) -> None:
    saver = Saver(CheckpointFolder(root), {"w": torch.ones(1)}, World())
    for step in steps:
        saver.save(step, {"w": torch.ones(1)}, {})
    saver.finish()


@pytest.mark.slow("processes that train together")
def test_a_stale_rank_is_heard_of(tmp_path):
    fresh, stale = tmp_path / "fresh", tmp_path / "stale"
    _saved(fresh, 8, 16)
    shutil.copytree(fresh, stale)
    shutil.rmtree(stale / "step_000000016")
    assert _both([fresh, stale], _agree) == {0: 8, 1: 8}
    shutil.rmtree(stale / "step_000000008")
    told = _both([fresh, stale], _agree)
    assert told[0] == told[1]
    assert "the ranks have no checkpoint in common" in told[0]
    assert "rank 1 none" in told[0]


@pytest.mark.slow("processes that train together")
def test_ranks_that_share_no_folder_are_told_before_the_first_step(tmp_path):
    told = _both([tmp_path / "a", tmp_path / "b"], _begin)
    assert all("ranks [1] do not see rank 0's folder" in one for one in told.values())
    assert _both([tmp_path / "a", tmp_path / "a"], _begin) == {0: None, 1: None}


@pytest.mark.slow("processes that train together")
def test_what_one_rank_cannot_write_ends_all_and_commits_nothing(tmp_path):
    told = _both([tmp_path, tmp_path], _fail)
    assert "No space left" in told[1]
    assert "another rank could not save the checkpoint of step 1" in told[0]
    assert not list(tmp_path.glob("step_*"))


def test_one_rank_alone_takes_the_newest_that_is_whole(tmp_path):
    place = CheckpointFolder(tmp_path)
    assert agreed_checkpoint(place, World()) is None
    _saved(tmp_path, 1, 2)
    (tmp_path / "step_000000002" / "shard_00000.safetensors").write_bytes(b"torn")
    assert agreed_checkpoint(place, World()).step == 1
