"""CPU slots of this machine: how many stages of one run work at the same time."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Slots:
    """A weighted semaphore. A stage that asks for more than there is gets all of it alone; among
    waiters the order is that of arrival, so that a wide stage is not starved by narrow ones."""

    def __init__(self, total: int | None = None) -> None:
        self.total = total or len(os.sched_getaffinity(0))
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
            while self._queue[0] is not ticket or self._free < cpus:
                if give_up():
                    self._queue.remove(ticket)
                    self._changed.notify_all()
                    break
                self._changed.wait(0.5)
            else:
                self._queue.pop(0)
                self._free -= cpus
                self._changed.notify_all()
                ticket = None
        if ticket is not None:
            yield False
            return
        try:
            yield True
        finally:
            with self._changed:
                self._free += cpus
                self._changed.notify_all()
