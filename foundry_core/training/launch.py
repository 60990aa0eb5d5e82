"""Runs a training worker: in this process when there is one, in Ray Train when there are several.

A worker is a module-level function (StageContext, World) → metrics, the same in both cases. Rank 0
writes the artifact; all ranks read inputs and scratch, which several machines must therefore share.
"""

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from foundry_core.errors import FoundryError
from foundry_core.files import read_cache, read_json, write_json
from foundry_core.parallel import ray_session
from foundry_core.pipeline.stage import StageContext
from foundry_core.training.config import TrainResources
from foundry_core.training.distributed import World
from foundry_core.training.stop import StopRequest, on_sigterm, stop_file

Worker = Callable[[StageContext, World], Mapping[str, float]]

_POLL_SECONDS = 0.5
_MAX_FAILURES = 3
_MISTAKE = "mistake.json"


def launch(worker: Worker, ctx: StageContext) -> Mapping[str, float]:
    """Metrics of rank 0. ctx.resources is a TrainResources."""
    resources = ctx.resources
    if resources.workers > 1:
        return _launch_ray(worker, ctx)
    device = device_of(resources)
    with threads(resources.cpus):
        return worker(ctx, World(device=device))


def device_of(resources: TrainResources) -> torch.device:
    """Where a worker in this process computes. FoundryError for a GPU that is not here."""
    if resources.gpus and not torch.cuda.is_available():
        raise FoundryError(
            f"resources.gpus={resources.gpus} but torch {torch.__version__} sees no GPU here",
            "set resources.gpus=0, or dispatch to a pool with GPUs",
        )
    return torch.device("cuda" if resources.gpus else "cpu")


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """torch on `count` threads for the block's duration."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, count))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _launch_ray(worker: Worker, ctx: StageContext) -> Mapping[str, float]:
    """TorchTrainer named after the stage's key. A lost worker restarts the group, which continues
    from the loop's own checkpoint in scratch: Ray's checkpoints would be a second
    account of the same state."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    resources = ctx.resources
    gpus = resources.gpus / resources.workers
    per_worker = {"CPU": resources.cpus, **({"GPU": gpus} if gpus else {})}
    progress_file = ctx.scratch / "progress.json"
    mistake_file = ctx.scratch / _MISTAKE
    stop = stop_file(ctx.scratch)
    for stale in (progress_file, mistake_file, stop):
        stale.unlink(missing_ok=True)
    trainer = TorchTrainer(
        _ray_worker,
        train_loop_config={"worker": worker, "ctx": dataclasses.replace(ctx, progress=_silent)},
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=resources.workers, use_gpu=bool(gpus), resources_per_worker=per_worker
        ),
        run_config=RunConfig(
            name=ctx.key,
            storage_path=str((ctx.scratch / "ray").absolute()),
            failure_config=FailureConfig(max_failures=_MAX_FAILURES),
        ),
    )
    slots = resources.workers * max(1, resources.cpus) + 1  # one for Ray's controller
    with ray_session(slots), _relay(progress_file, ctx.progress):
        _check_cluster(ctx.name, resources)
        with on_sigterm(stop.touch):
            trainer.fit()
    if stop.exists():
        stop.unlink()
        StopRequest.end()
    if mistake_file.exists():
        raise FoundryError(*read_json(mistake_file))
    metrics: Mapping[str, float] = read_json(ctx.scratch / "metrics.json")
    return metrics


def _check_cluster(stage: str, resources: TrainResources) -> None:
    """Raises FoundryError for more than the whole cluster has: Ray would wait for it for ever."""
    import ray

    present = ray.cluster_resources()
    for name, wanted in (("GPU", resources.gpus), ("CPU", resources.workers * resources.cpus)):
        if wanted > present.get(name, 0):
            raise FoundryError(
                f"stage {stage!r}: its {resources.workers} workers ask for {wanted:g} {name}s, "
                f"Ray has {present.get(name, 0):g} here",
                f"lower {stage}.resources, or dispatch to a pool or cluster that has them",
            )


def _ray_worker(config: Mapping[str, Any]) -> None:
    """A user's mistake is left as a file: Ray restarts the group after any error, and the group
    that finds the file ends at once."""
    import ray.train
    import ray.train.torch

    ctx: StageContext = config["ctx"]
    context = ray.train.get_context()
    world = World(
        rank=context.get_world_rank(),
        size=context.get_world_size(),
        device=ray.train.torch.get_device(),
    )
    mistake = ctx.scratch / _MISTAKE
    if mistake.exists():
        return
    progress = partial(_write_progress, ctx.scratch / "progress.json") if world.main else _silent
    try:
        with threads(ctx.resources.cpus):
            metrics = config["worker"](dataclasses.replace(ctx, progress=progress), world)
    except SystemExit:  # the launching process was asked to end; Ray would start again
        if stop_file(ctx.scratch).exists():
            return
        raise
    except FoundryError as error:
        write_json(mistake, [error.message, error.hint])
        raise
    if world.main:
        write_json(ctx.scratch / "metrics.json", dict(metrics))
    world.barrier()


def _silent(done: float, total: float, message: str = "", **values: float) -> None:
    """Progress of ranks other than 0."""


def _write_progress(
    path: Path, done: float, total: float, message: str = "", **values: float
) -> None:
    """Rank 0's progress as a file, which the launching process relays."""
    write_json(path, [done, total, message, values], durable=False)


@contextlib.contextmanager
def _relay(path: Path, progress: Callable[..., None]) -> Iterator[None]:
    """Passes what appears in `path` on to `progress`, from a thread, until the block ends."""
    stop = threading.Event()

    def poll() -> None:
        seen = None
        while not stop.wait(_POLL_SECONDS):
            latest = read_cache(path)
            if latest and latest != seen:
                seen = latest
                done, total, message, values = latest
                progress(done, total, message, **values)

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
