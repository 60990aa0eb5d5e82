"""Runs a training worker: in this process when there is one, in Ray Train when there are several.

A worker is a module-level function (StageContext, World) → metrics, the same in both cases. Rank 0
writes the artifact. Machines share a disk (the store's, with scratch and inputs), or the store is
an object store, and each works on a disk of its own (`StageContext.elsewhere`).
"""

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from foundry_core.errors import FoundryError
from foundry_core.parallel import ray_session
from foundry_core.pipeline.stage import Elsewhere, Progress, StageContext
from foundry_core.training.board import Board, End, Told
from foundry_core.training.config import TrainResources
from foundry_core.training.distributed import World, never
from foundry_core.training.stop import StopRequest, on_sigterm

Worker = Callable[[StageContext, World], Mapping[str, float]]

_POLL_SECONDS = 0.5
_MAX_FAILURES = 3


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
    from the loop's own checkpoint: Ray's checkpoints would be a second account of the same
    state."""
    import ray

    resources = ctx.resources
    slots = resources.workers * max(1, resources.cpus) + 1  # one for Ray's controller
    with ray_session(slots, log=True):
        _check_cluster(ctx.name, resources)
        node = ray.get_runtime_context().get_node_id()
        board = _board(node)
        asked = threading.Event()
        with _relay(board, ctx.progress, asked), on_sigterm(asked.set):
            _trainer(worker, ctx, board, node).fit()
        mistake, end = ray.get([board.mistake.remote(), board.end.remote()])
    if mistake is not None:
        raise FoundryError(*mistake)
    if end is None:
        StopRequest.end()
    if end.receipt is not None:
        assert ctx.elsewhere is not None
        ctx.elsewhere.take(ctx, end.receipt)
    metrics: Mapping[str, float] = end.metrics
    return metrics


def _board(node: str) -> Any:
    """An actor on the launching process's node: it ends with that process, and with no worker's
    node."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    beside = NodeAffinitySchedulingStrategy(node_id=node, soft=False)
    actor: Any = ray.remote(Board)
    return actor.options(num_cpus=0, scheduling_strategy=beside).remote()


def _trainer(worker: Worker, ctx: StageContext, board: Any, node: str) -> Any:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    resources = ctx.resources
    gpus = resources.gpus / resources.workers
    per_worker = {"CPU": resources.cpus, **({"GPU": gpus} if gpus else {})}
    sent = dataclasses.replace(ctx, progress=_silent)
    return TorchTrainer(
        _ray_worker,
        train_loop_config={"worker": worker, "ctx": sent, "board": board, "node": node},
        torch_config=TorchConfig(backend="nccl" if gpus else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=resources.workers, use_gpu=bool(gpus), resources_per_worker=per_worker
        ),
        run_config=RunConfig(
            name=ctx.key,
            # Ray's controller alone reads and writes there, and it runs on this node.
            storage_path=str((ctx.scratch / "ray").absolute()),
            failure_config=FailureConfig(max_failures=_MAX_FAILURES),
        ),
    )


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
    """One rank. On another node than the launching process's it works in folders of its own, where
    the store, and not a disk, is what the nodes share."""
    import ray
    import ray.train
    import ray.train.torch

    ctx, board = config["ctx"], config["board"]
    if ray.get(board.mistake.remote()) is not None:
        return
    context = ray.train.get_context()
    main = context.get_world_rank() == 0
    world = World(
        rank=context.get_world_rank(),
        size=context.get_world_size(),
        device=ray.train.torch.get_device(),
        stop=(lambda: ray.get(board.stopping.remote())) if main else never,
    )
    away = ray.get_runtime_context().get_node_id() != config["node"]
    try:
        with threads(ctx.resources.cpus):
            _work(config["worker"], ctx, world, board, ctx.elsewhere if away else None)
    except SystemExit:  # the launching process was asked to end; Ray would start again
        if not ray.get(board.stopping.remote()):
            raise
    except FoundryError as error:
        ray.get(board.tell_mistake.remote(error.message, error.hint))
        raise


def _work(
    worker: Worker, ctx: StageContext, world: World, board: Any, elsewhere: Elsewhere | None
) -> None:
    """The rank's part of the stage; rank 0 tells the end when its output lies where it is read."""
    import ray

    told = board.tell_progress.remote

    def progress(done: float, total: float, message: str = "", **values: float) -> None:
        told(done, total, message, values)

    with contextlib.ExitStack() as stack:
        if elsewhere is not None:
            ctx = stack.enter_context(elsewhere.context(ctx, world.rank))
        ctx = dataclasses.replace(ctx, progress=progress if world.main else _silent)
        metrics = worker(ctx, world)
        if world.main:
            receipt = elsewhere.give(ctx) if elsewhere is not None else None
            ray.get(board.tell_end.remote(End(metrics=dict(metrics), receipt=receipt)))
        world.barrier()


def _silent(done: float, total: float, message: str = "", **values: float) -> None:
    """Progress of ranks other than 0."""


@contextlib.contextmanager
def _relay(board: Any, progress: Progress, asked: threading.Event) -> Iterator[None]:
    """Passes on, from a thread, until the block ends: what rank 0 tells to `progress`; that this
    process was asked to end to the ranks."""
    import ray

    ended = threading.Event()

    def poll() -> None:
        seen: Told | None = None
        last = told = False
        while not last:
            last = ended.wait(_POLL_SECONDS)
            if asked.is_set() and not told:
                told = True
                ray.get(board.ask_to_stop.remote())
            latest = ray.get(board.progress.remote())
            if latest is not None and latest != seen:
                seen = latest
                done, total, message, values = latest
                progress(done, total, message, **values)

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
