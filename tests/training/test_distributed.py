"""Two gloo processes against one: the same curve and weights, whatever wraps the model."""

import itertools
import json
import multiprocessing
import os
import socket
import weakref
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from model_zoo import build, language_config
from safetensors.torch import save_file
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Replicate, Shard, distribute_tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from training_toy import toy_batches, toy_trainer, toy_validator, weights

from foundry_core.data.loading.config import TEXT
from foundry_core.errors import FoundryError
from foundry_core.training.distributed import World, full, local_batch_size
from foundry_core.training.loop import Trainer
from foundry_core.training.mixed_batch import MixedBatch
from foundry_core.training.objectives import TextLoss


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def until(last: int, batches, first: int):
    """The data end early; `first`: the step of the first of them."""
    return itertools.islice(batches, max(0, last - first))


def _rank(rank: int, size: int, port: int, folder: str, changes: dict) -> None:
    _start(rank, size, port)
    world = World(rank=rank, size=size)
    last = changes.pop("until", 1000)
    make = changes.pop("make", None)
    trainer = (
        make(Path(folder), world, **changes)
        if make
        else toy_trainer(
            Path(folder),
            world=world,
            batches=lambda first: until(last, toy_batches(first, world), first),
            **changes,
        )
    )
    try:
        trainer.train()
    except FoundryError:
        trainer.saver.finish()
        if last == 1000:
            raise
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
        process.join(240)
    assert [process.exitcode for process in processes] == [0] * size
    return torch.load(folder / "weights.pt", weights_only=True)


def language_trainer(folder: Path, world: World = World(), **changes) -> Trainer:
    """A decoder of two blocks on rows of random words."""
    model = build(language_config())

    def batches(first: int) -> Iterator[MixedBatch]:
        for step in itertools.count(first):
            generator = torch.Generator().manual_seed(step)
            tokens = torch.randint(model.vocab_size, (8, 13), generator=generator)
            share = tokens.chunk(world.size)[world.rank]
            yield {TEXT: {"tokens": share, "segments": torch.zeros_like(share)}}

    return toy_trainer(
        folder,
        model=model,
        objectives={TEXT: TextLoss()},
        weights={},
        world=world,
        batches=batches,
        steps=6,
        training={"optimizer": {"eps": 1e-4}},
        **changes,
    )


def _curve(folder: Path, name: str = "metrics") -> list[dict]:
    return [json.loads(x) for x in (folder / f"records/{name}.jsonl").read_text().splitlines()]


@pytest.mark.slow("processes that train together")
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_ranks_equal_one(tmp_path, strategy):
    """With micro-batches inside, and a checkpoint in the middle that a second start resumes."""
    told = {"datasets": {"a": ("left", "right")}}
    alone = toy_trainer(tmp_path / "alone", **told)
    alone.train()
    resources = {"strategy": strategy, "micro_batch": 3, "checkpoint_every_steps": 8}
    both = _run(tmp_path / "both", resources=resources, **told)
    for name, value in weights(alone).items():
        torch.testing.assert_close(both[name], value, atol=1e-6, rtol=1e-4)
    for one, two in zip(_curve(tmp_path / "alone"), _curve(tmp_path / "both"), strict=True):
        assert two == pytest.approx(one, rel=1e-5)
        assert {"a_loss/left", "a_loss/right"} < one.keys()
    (tmp_path / "both" / "weights.pt").unlink()
    resumed = _run(tmp_path / "both", resources=resources, **told)
    assert all(torch.equal(resumed[name], both[name]) for name in both)
    timings = json.loads((tmp_path / "both/records/timings.json").read_text())
    assert timings["resumed_from_step"] == 16


@pytest.mark.slow("processes that train together")
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_validation_says_the_same_and_keeps_the_same_weights(tmp_path, strategy):
    best = {"measure": "a/loss", "better": "higher", "least_gain": 1e9}
    validator = toy_validator(best=best)
    alone = toy_trainer(tmp_path / "alone", validator=validator)
    alone.train()
    resources = {"strategy": strategy, "checkpoint_every_steps": 8}
    both = _run(tmp_path / "both", resources=resources, validator=validator)
    for name, value in weights(alone).items():
        torch.testing.assert_close(both[name], value, atol=1e-6, rtol=1e-4)
    one, two = (_curve(tmp_path / name, "validation") for name in ("alone", "both"))
    assert [row["step"] for row in one] == [0, 4, 8, 12, 16, 20]
    for mine, theirs in zip(one, two, strict=True):
        assert theirs == pytest.approx(mine, rel=1e-5)


@pytest.mark.slow("processes that train together")
@pytest.mark.parametrize("strategy", ["fsdp", "hsdp"])
def test_recomputed_blocks_of_shards_equal_one(tmp_path, strategy):
    """Blocks whose weights are gathered for the forward pass, and again for the pass that runs it a
    second time: bit for bit what shards give that keep their activations, and one process's."""
    alone = language_trainer(tmp_path / "alone")
    alone.train()
    resources = {"strategy": strategy, "micro_batch": 2}
    if strategy == "hsdp":
        resources |= {"shard_size": 2, "num_workers": 4}
    size = 4 if strategy == "hsdp" else 2
    kept = _run(tmp_path / "kept", size, make=language_trainer, resources=resources)
    again = {**resources, "recompute": ("language",)}
    found = _run(tmp_path / "again", size, make=language_trainer, resources=again)
    assert found.keys() == weights(alone).keys()
    assert all(torch.equal(found[name], kept[name]) for name in kept)
    for name, value in weights(alone).items():
        torch.testing.assert_close(found[name], value, atol=1e-5, rtol=1e-4)


@pytest.mark.slow("processes that train together")
def test_copies_of_shards_equal_one(tmp_path):
    """Two by two: shards within a pair, copies of them between the pairs."""
    alone = toy_trainer(tmp_path / "alone")
    alone.train()
    resources = {"strategy": "hsdp", "shard_size": 2, "num_workers": 4}
    four = _run(tmp_path / "four", size=4, resources=resources)
    for name, value in weights(alone).items():
        torch.testing.assert_close(four[name], value, atol=1e-5, rtol=1e-4)


@pytest.mark.slow("processes that train together")
def test_half_weights_round_the_first_losses_only_a_little(tmp_path):
    """Weights are not compared: Adam's first steps turn a flipped sign into twice the rate."""
    toy_trainer(tmp_path / "whole", steps=4).train()
    resources = {"strategy": "fsdp"}
    _run(tmp_path / "half", steps=4, training={"precision": "bf16_weights"}, resources=resources)
    for one, two in zip(_curve(tmp_path / "whole"), _curve(tmp_path / "half"), strict=True):
        assert two["loss"] == pytest.approx(one["loss"], rel=2e-2)
        assert two["loss"] != one["loss"]


EVERY_FOUR = {"checkpoint_every_steps": 4}


@pytest.mark.slow("processes that train together")
def test_a_run_goes_on_with_other_numbers_of_ranks(tmp_path):
    """4 in two copies, 2, 1 in one process, 4 flat: the curve of one process. Each stops early."""
    alone = toy_trainer(tmp_path / "alone")
    alone.train()
    folder = tmp_path / "some"
    hsdp = {"strategy": "hsdp", "shard_size": 2, "num_workers": 4, **EVERY_FOUR}
    _run(folder, size=4, until=6, resources=hsdp)
    assert _newest(folder) == (4, 4)
    _run(folder, size=2, until=10, resources={"strategy": "fsdp", **EVERY_FOUR})
    assert _newest(folder) == (8, 2)
    with pytest.raises(FoundryError, match="the data ended at step 14"):
        toy_trainer(
            folder, batches=lambda first: until(14, toy_batches(first), first), resources=EVERY_FOUR
        ).train()
    assert _newest(folder) == (12, 1)
    four = _run(folder, size=4, resources={"strategy": "fsdp", **EVERY_FOUR})
    assert json.loads((folder / "records/timings.json").read_text())["resumed_from_step"] == 12
    for name, value in weights(alone).items():
        torch.testing.assert_close(four[name], value, atol=1e-5, rtol=1e-4)
    for one, other in zip(_curve(tmp_path / "alone"), _curve(folder), strict=True):
        assert other == pytest.approx(one, rel=1e-5)


def _newest(folder: Path) -> tuple[int, int]:
    """(step, shards) of the newest checkpoint."""
    newest = max((folder / "scratch" / "checkpoints").glob("step_*"))
    return int(newest.name.removeprefix("step_")), len(list(newest.glob("shard_*")))


def _reshard(rank: int, size: int, port: int, folder: str, results) -> None:
    """Saves state of 4 ranks in two copies; reads it flat: equal, bit by bit."""
    from foundry_core.training.checkpoint import CheckpointFolder
    from foundry_core.training.layout import read_parts
    from foundry_core.training.saving import Saver

    _start(rank, size, port)
    world = World(rank=rank, size=size)
    meshes = [
        init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard")),
        init_device_mesh("cpu", (4,)),
    ]
    place = CheckpointFolder(Path(folder))
    whole = {"w": torch.arange(15.0).reshape(5, 3), "v": torch.arange(2.0), "n": torch.tensor(7.0)}
    spread = [
        {
            "w": distribute_tensor(whole["w"], mesh, [*[Replicate()] * (mesh.ndim - 1), Shard(0)]),
            "v": distribute_tensor(whole["v"], mesh, [*[Replicate()] * (mesh.ndim - 1), Shard(0)]),
            "n": whole["n"].clone(),
        }
        for mesh in meshes
    ]
    saver = Saver(place, spread[0], world)
    saver.save(1, spread[0], {})
    spread[0]["w"].to_local().fill_(-1)  # the training goes on
    saver.finish()
    found = place.load(1, rank, size)
    for tensor in spread[1].values():
        (tensor.to_local() if hasattr(tensor, "to_local") else tensor).fill_(-9)
    read_parts(spread[1], found.layout, found.files)
    same = all(torch.equal(full(t), whole[name]) for name, t in spread[1].items())
    stored = sum(file.stat().st_size for file in found.files.values()) < 4 * 400
    results.put((same, stored, sorted(c.rank for c in found.layout["w"].chunks)))
    dist.barrier()


@pytest.mark.slow("processes that train together")
def test_two_copies_of_two_shards_are_written_once_and_read_as_four(tmp_path):
    found = _results(_reshard, 4, str(tmp_path))
    assert [(same, stored) for same, stored, _ in found] == [(True, True)] * 4
    assert len(found[0][2]) == 2  # each half once, whichever copy wrote it


def _export(rank: int, size: int, port: int, folder: str, results) -> None:
    from foundry_core.models import tensor_files
    from foundry_core.models.io import save_weights
    from foundry_core.training import distributed

    _start(rank, size, port)
    world = World(rank=rank, size=size)
    model = nn.Sequential(*[nn.Linear(256, 256) for _ in range(8)])
    for i, p in enumerate(model.parameters()):
        nn.init.constant_(p, float(i)).data.view(-1)[::7] = 0.5
    if rank == 0:
        save_file(model.state_dict(), Path(folder) / "expected", metadata={"format": "pt"})
    sharded = distributed.parallelise(model, world, "fsdp")
    tensor_files.PIECE_BYTES = distributed.PIECE_BYTES = 16 << 10
    with CountedBytes() as counted:
        path = Path(folder) / "written" if rank == 0 else None
        pieces = partial(distributed.whole_pieces, world=world)
        save_weights(path, sharded, pieces=pieces)
    results.put((rank, counted.most))
    dist.barrier()


class CountedBytes(TorchDispatchMode):
    """most: bytes of new tensors that were alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        given = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if _real(t)}
        made = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if _real(tensor) and tensor.untyped_storage().data_ptr() not in given | self._seen:
                storage = tensor.untyped_storage()
                self.now += storage.nbytes()
                self.most = max(self.most, self.now)
                self._seen.add(storage.data_ptr())
                weakref.finalize(storage, self._gone, storage.data_ptr(), storage.nbytes())
        return made

    def _gone(self, address: int, size: int) -> None:
        self._seen.discard(address)
        self.now -= size


def _real(value) -> bool:
    return isinstance(value, torch.Tensor) and not hasattr(value, "to_local")


@pytest.mark.slow("processes that train together")
def test_the_export_of_sharded_weights_holds_a_piece_and_never_a_whole_tensor(tmp_path):
    most = dict(_results(_export, 2, str(tmp_path)))
    assert (tmp_path / "written").read_bytes() == (tmp_path / "expected").read_bytes()
    tensor = 256 * 256 * 4
    assert max(most.values()) <= 3 * (16 << 10) < tensor // 2


def _start(rank: int, size: int, port: int) -> None:
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=size)


def _results(job, size: int, *args) -> list:
    """What each rank put."""
    context, port = multiprocessing.get_context("spawn"), _free_port()
    results = context.Queue()
    processes = [
        context.Process(target=job, args=(rank, size, port, *args, results)) for rank in range(size)
    ]
    for process in processes:
        process.start()
    try:
        return [results.get(timeout=240) for _ in processes]
    finally:
        for process in processes:
            process.join(10)
            process.kill()


def test_a_batch_that_does_not_divide_among_the_workers():
    assert local_batch_size(12, World(rank=0, size=3), "text") == 4
    with pytest.raises(FoundryError, match="text batch of 10 does not divide among 3"):
        local_batch_size(10, World(rank=0, size=3), "text")
