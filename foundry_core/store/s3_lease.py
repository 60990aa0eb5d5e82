"""Leases in an object store.

    leases/<key>/<number>    the holder is whoever owns the largest number

Taking a lease, also a stale one, is a create-only put of the next number, so of any number of
takers one succeeds. A released lease stays as a tombstone: numbers never start again, and a taker
that looked long ago finds itself below the largest. Heartbeats are conditional overwrites.
"""

import contextlib
import json
import threading

from foundry_core.files import json_line
from foundry_core.objects import Objects, StoreUnavailable
from foundry_core.store.lease import Beat, Holder, Lease, beat_of, new_holder


class S3Lease(Lease):
    """Held as long as no larger number than its own is there."""

    def __init__(self, backend: "S3LeaseBackend", number: int, owner: Holder, tag: str) -> None:
        super().__init__(owner, backend.key)
        self._backend = backend
        self._number = number
        self._tag: str | None = tag
        self._renewing = threading.Lock()

    def _holds(self) -> bool:
        top = self._backend.top()
        if top != self._number:
            return False
        held = self._backend.read(top)
        return held is not None and held[0]["token"] == self._owner["token"]

    def _renew(self, beat: int) -> bool:
        # An unreachable store ends no heartbeat: it may be back before the TTL is over.
        with contextlib.suppress(StoreUnavailable):
            return self._overwrite({**self._owner, "beat": beat})
        return True

    def release(self) -> None:
        with contextlib.suppress(StoreUnavailable):
            self._overwrite({**self._owner, "released": True})

    def _overwrite(self, owner: Holder) -> bool:
        with self._renewing:
            if self._tag is not None:
                self._tag = self._backend.replace(self._number, owner, self._tag)
            return self._tag is not None


class S3LeaseBackend:
    """One key's leases. For one waiter: it remembers which stale holder it has broken."""

    def __init__(self, objects: Objects, key: str) -> None:
        self.key = key
        self._objects = objects
        self._broken: Beat | None = None

    def claim(self) -> S3Lease | None:
        top = self.top()
        held = self.read(top) if top else None
        if held and not held[0].get("released") and beat_of(held[0]) != self._broken:
            return None
        owner = new_holder()
        number = top + 1
        if not self._objects.create(self._name(number), json_line(owner).encode()):
            return None
        if self.top() != number:
            self._objects.delete(self._name(number))
            return None
        mine = self.read(number)
        if mine is None:
            return None
        older = [name for name in self._names() if int(name) < number]
        self._objects.delete(*(f"{self.key}/{name}" for name in older))
        return S3Lease(self, number, owner, mine[1])

    def holder(self) -> Holder | None:
        """Who holds the lease now; None when it is free."""
        top = self.top()
        held = self.read(top) if top else None
        return None if held is None or held[0].get("released") else held[0]

    def break_stale(self, holder: Holder) -> None:
        """Lets the next `claim` take the number after this holder's, if it has not moved."""
        self._broken = beat_of(holder)

    def top(self) -> int:
        """The largest number; 0 when there never was one."""
        return max((int(name) for name in self._names()), default=0)

    def read(self, number: int) -> tuple[Holder, str] | None:
        """Who has, or had, this number, and the entity tag."""
        try:
            data, tag = self._objects.read_tagged(self._name(number))
        except FileNotFoundError:
            return None
        return json.loads(data), tag

    def replace(self, number: int, owner: Holder, tag: str) -> str | None:
        """The new entity tag; None when another one wrote since."""
        return self._objects.replace(self._name(number), json_line(owner).encode(), tag)

    def _names(self) -> list[str]:
        return [name for name in self._objects.names(self.key) if name.isdigit()]

    def _name(self, number: int) -> str:
        return f"{self.key}/{number:012d}"
