"""CPU slots of this machine: how many stages of one run work at the same time."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from foundry_core.pipeline.stage import Resources


def here() -> int:
    """The CPUs of this machine that this process may use."""
    return len(os.sched_getaffinity(0))


def workers_of(resources: Resources) -> int:
    """The processes of a stage, each with `resources.cpus` of its own."""
    return getattr(resources, "workers", 1)


def cpus_of(resources: Resources) -> int:
    return resources.cpus * workers_of(resources)


class Slots:
    """A weighted semaphore. A stage that asks for more than there is gets all of it alone; among
    waiters the order is that of arrival, so that a wide stage is not starved by narrow ones."""

    def __init__(self, total: int | None = None) -> None:
        self.total = total or here()
        self._free = self.total
        self._queue: list[object] = []
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, cpus: int, give_up: Callable[[], bool] = lambda: False) -> Iterator[bool]:
        """Blocks until `cpus` are free; yields False when `give_up()` came true first."""
        cpus = min(cpus, self.total)
        ticket = object()
        with self._changed:
            self._queue.append(ticket)
            while not (mine := self._queue[0] is ticket and self._free >= cpus) and not give_up():
                self._changed.wait(0.5)
            self._queue.remove(ticket)
            held = cpus if mine else 0
            self._free -= held
            self._changed.notify_all()
        try:
            yield mine
        finally:
            with self._changed:
                self._free += held
                self._changed.notify_all()
