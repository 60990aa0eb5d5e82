"""Ordered parallel map on Ray: the one place that starts a local Ray.

Results come back in the order of the items whatever the number of workers, so that what is
written from them is the same for any number.
"""

import os
import secrets
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")
_STARTS = 3


def private_ray() -> None:
    """Before Ray is imported: a local Ray asks every caller for a token that this process made up.
    Its ports are open on all of the machine's addresses, and who may use them runs what they like.
    A cluster named by RAY_ADDRESS, and RAY_AUTH_MODE where it is set, are left alone."""
    if not {"RAY_ADDRESS", "RAY_AUTH_MODE"} & os.environ.keys() and "ray" not in sys.modules:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}


@contextmanager
def ray_session(cpus: int, *, log: bool = False) -> Iterator[None]:
    """Connects to RAY_ADDRESS, or starts a local Ray with `cpus` slots for the block's duration.
    log: what workers print, on whichever node, this process prints, too.

    Starting costs 3-6 s on a laptop: open one session per stage, not per call.
    """
    private_ray()
    import ray

    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    address = os.environ.get("RAY_ADDRESS")
    # Ray puts the driver's current folder first on its workers' path, unless the job came by Ray
    # Client: there, packages of a user's own would stand for the installed ones of that name.
    config = ray.job_config.JobConfig(_client_job=True)
    if address:
        ray.init(address=address, job_config=config, log_to_driver=log)
    else:
        _start_local(cpus, config, log)
    try:
        yield
    finally:
        ray.shutdown()


def _start_local(cpus: int, config: Any, log: bool = False) -> None:
    """Ray gives its processes 30 s to come up, which a machine that does much else exceeds: then
    once more, and once again."""
    import ray

    for attempt in range(1, _STARTS + 1):
        try:
            ray.init(
                num_cpus=cpus,
                job_config=config,
                include_dashboard=False,
                log_to_driver=log,
                configure_logging=False,
                object_store_memory=512 * 1024**2,
            )
        except Exception as error:  # Ray raises just that
            if attempt == _STARTS or "timed out during startup" not in str(error):
                raise
            ray.shutdown()
        else:
            return


def ray_map(
    function: Callable[[T], R], items: Iterable[T], *, workers: int, in_flight: int | None = None
) -> Iterator[R]:
    """Yields function(item) in item order, at most `in_flight` (default 2 × workers) at a time.

    Items are taken as the window moves on and neither they nor results are kept: of any number,
    memory is that of the window. Raises the worker's own exception. Must be called inside
    `ray_session`.
    """
    import ray

    @ray.remote(num_cpus=1)
    def remote(item: T) -> R:  # Ray takes functions alone; `function` may be a partial, too
        return function(item)

    window = in_flight or 2 * workers
    waiting = iter(items)
    pending: deque = deque()
    try:
        while True:
            pending.extend(map(remote.remote, islice(waiting, window - len(pending))))
            if not pending:
                return
            try:
                result = ray.get(pending.popleft())
            except ray.exceptions.RayTaskError as error:
                raise error.cause if error.cause is not None else error from error
            yield result
    finally:
        for reference in pending:  # left early: by an error, or by a consumer that has enough
            ray.cancel(reference)


def ordered_map(
    function: Callable[[T], R], items: Iterable[T], *, workers: int, in_flight: int | None = None
) -> Iterator[R]:
    """function(item) in item order on `workers` processes; in this process for one worker, where
    Ray's 3-6 s of start would be wasted. A cluster named by RAY_ADDRESS is used in any case."""
    if workers <= 1 and not os.environ.get("RAY_ADDRESS"):
        yield from map(function, items)
        return
    with ray_session(workers):
        yield from ray_map(function, items, workers=workers, in_flight=in_flight)
