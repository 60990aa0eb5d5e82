"""CPU slots of this machine: how many stages of one run work at the same time."""

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from foundry_core.pipeline.stage import Resources

# Between a stage's end and the next one's beginning lie two of Prefect's states.
_EXPECTED_SECONDS = 10.0


def here() -> int:
    """The CPUs of this machine that this process may use."""
    return len(os.sched_getaffinity(0))


def workers_of(resources: Resources) -> int:
    """The processes of a stage, each with `resources.cpus` of its own."""
    return getattr(resources, "workers", 1)


def cpus_of(resources: Resources) -> int:
    return resources.cpus * workers_of(resources)


@dataclass(frozen=True, kw_only=True)
class _Ticket:
    """expires: when nobody waits for it any more; None of one that is waited with."""

    name: str
    cpus: int
    urgency: float
    number: int
    expires: float | None = None

    @property
    def turn(self) -> tuple[float, int]:
        return -self.urgency, self.number


class Slots:
    """A weighted semaphore. A stage that asks for more than there is gets all of it alone. The most
    urgent one goes first, among equals the one that came first; no other takes what it waits for,
    so that a wide stage is not starved by narrow ones."""

    def __init__(self, total: int | None = None) -> None:
        self.total = total or here()
        self._free = self.total
        self._queue: list[_Ticket] = []
        self._numbers = itertools.count()
        self._changed = threading.Condition()

    def expect(self, name: str, cpus: int, urgency: float) -> None:
        """Keeps a place in the queue for a stage that is about to ask: what it waited for ends in
        the caller's hands. Without it a stage that nobody waits for would take the caller's CPU,
        perhaps for minutes, in the moment until then."""
        with self._changed:
            expires = time.monotonic() + _EXPECTED_SECONDS
            self._queue.append(self._ticket(name, cpus, urgency, expires))

    @contextmanager
    def hold(
        self,
        cpus: int,
        give_up: Callable[[], bool] = lambda: False,
        *,
        name: str = "",
        urgency: float = 0.0,
    ) -> Iterator[bool]:
        """Blocks until `cpus` are free; yields False when `give_up()` came true first. name: as it
        was expected."""
        with self._changed:
            ticket = self._ticket(name, cpus, urgency)
            self._queue = [one for one in self._queue if not (one.expires and one.name == name)]
            self._queue.append(ticket)
            while not (mine := self._may_go(ticket)) and not give_up():
                self._changed.wait(0.5)
            self._queue.remove(ticket)
            held = ticket.cpus if mine else 0
            self._free -= held
            self._changed.notify_all()
        try:
            yield mine
        finally:
            with self._changed:
                self._free += held
                self._changed.notify_all()

    def _ticket(
        self, name: str, cpus: int, urgency: float, expires: float | None = None
    ) -> _Ticket:
        return _Ticket(
            name=name,
            cpus=min(cpus, self.total),
            urgency=urgency,
            number=next(self._numbers),
            expires=expires,
        )

    def _may_go(self, ticket: _Ticket) -> bool:
        now = time.monotonic()
        self._queue = [one for one in self._queue if one.expires is None or one.expires > now]
        wanted = sum(one.cpus for one in self._queue if one.turn <= ticket.turn)
        return wanted <= self._free
