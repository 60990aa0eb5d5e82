"""Leases: at most one worker at a time per key.

A lease is a create-exclusive file with an owner token and a heartbeat count. A waiter takes it over
only when the holder is known dead (same host and boot, its process gone or replaced) or when the
heartbeat has not moved for `ttl` seconds of the WAITER's monotonic clock: wall clocks of two hosts,
or one set back an hour, never decide. A slow holder keeps its lease as long as its heartbeat
thread lives, and on the waiter's own machine as long as its process lives, stopped or not. From
another host a stopped process cannot be told from a dead one: after the TTL it loses the lease,
finds out in `verify` when it goes on, and discards its work.
"""

import contextlib
import fcntl
import os
import socket
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NotRequired, Protocol, TypedDict

from foundry_core.files import create, json_line, read_json, write_atomic

TTL_SECONDS = 60.0
_HEARTBEAT_SECONDS = 5.0


class LeaseLost(RuntimeError):
    """Another worker took the lease over: this attempt must not commit."""


def _process_start(pid: int) -> str | None:
    """Start time of a process in clock ticks since boot; None when there is none. Guards against
    a pid that was given to another process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else fields[19]


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _pid_namespace() -> str:
    """Two containers may share host name and boot while their pids mean different processes."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


class Process(TypedDict):
    """What tells a process from every other one, of any host."""

    host: str
    boot: str
    namespace: str
    pid: int
    start: str | None


class Holder(Process):
    """Who has a lease. token: no other taker has it. released: given back (only where a lease
    stays as a tombstone)."""

    token: str
    beat: int
    released: NotRequired[bool]


def process_identity(pid: int | None = None) -> Process:
    """A process of this machine, by default this one, for `is_dead` and `is_alive`."""
    pid = os.getpid() if pid is None else pid
    return {
        "host": socket.gethostname(),
        "boot": _boot_id(),
        "namespace": _pid_namespace(),
        "pid": pid,
        "start": _process_start(pid),
    }


def new_holder() -> Holder:
    """This process, before its first heartbeat."""
    return {**process_identity(), "token": uuid.uuid4().hex, "beat": 0}


# A token, and the heartbeats since it was taken.
Beat = tuple[str, int]


class Lease(ABC):
    """A held lease; a context manager that beats until it is left."""

    def __init__(self, owner: Holder, key: str) -> None:
        self._owner = owner
        self._key = key
        self._stop = threading.Event()
        self._lost = False
        self._thread = threading.Thread(target=self._beat, daemon=True, name="lease-heartbeat")

    def __enter__(self) -> "Lease":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.release()

    @property
    def lost(self) -> bool:
        """Whether the heartbeat found the lease in other hands. Costs nothing; may lag a beat."""
        return self._lost

    def verify(self) -> None:
        """Raises LeaseLost unless this process still holds the lease."""
        if not self._holds():
            raise LeaseLost(f"lease {self._key[:12]} was taken over by another worker")

    def _beat(self) -> None:
        count = 0
        while not self._stop.wait(_HEARTBEAT_SECONDS):
            count += 1
            if not self._renew(count):
                self._lost = True
                return

    @abstractmethod
    def _holds(self) -> bool:
        """Whether this process still has it."""

    @abstractmethod
    def _renew(self, beat: int) -> bool:
        """Writes a heartbeat; False when the lease is in other hands."""

    @abstractmethod
    def release(self) -> None:
        """Gives the lease back if this process still holds it."""


class LeaseBackend(Protocol):
    """Where one key's lease is kept, as one waiter sees it."""

    def claim(self) -> Lease | None:
        """The lease if it is free, exclusively."""

    def holder(self) -> Holder | None:
        """Who has it, with a token and a beat; None when it is free."""

    def break_stale(self, holder: Holder) -> None:
        """Frees it for the next `claim`, unless it has moved since this holder was read."""


class _FileLease(Lease):
    def __init__(self, path: Path, owner: Holder) -> None:
        super().__init__(owner, path.name)
        self._path = path

    def _holds(self) -> bool:
        held = read_lease(self._path)
        return held is not None and held["token"] == self._owner["token"]

    def _renew(self, beat: int) -> bool:
        # A full disk ends no heartbeat: it may have room again before the TTL is over.
        with contextlib.suppress(OSError), _lock(self._path):
            if not self._holds():
                return False
            write_atomic(self._path, json_line({**self._owner, "beat": beat}))
        return True

    def release(self) -> None:
        with _lock(self._path):
            if self._holds():
                self._path.unlink(missing_ok=True)


def read_lease(path: Path) -> Holder | None:
    """The lease's owner, or None. A torn file reads as an owner that never beats."""
    try:
        return read_json(path)
    except FileNotFoundError:
        return None
    except ValueError:
        nobody: Process = {"host": "", "boot": "", "namespace": "", "pid": 0, "start": ""}
        return {**nobody, "token": "torn", "beat": 0}


def is_dead(process: Mapping[str, Any]) -> bool:
    """True only when it can be known: same host, and rebooted since or the process is gone."""
    if process["host"] != socket.gethostname():
        return False
    if process["boot"] != _boot_id():
        return True
    return _visible(process) and _process_start(process["pid"]) != process["start"]


def is_alive(process: Mapping[str, Any]) -> bool:
    """True only when it can be known: the process is one of this machine's."""
    here = process["host"] == socket.gethostname() and process["boot"] == _boot_id()
    return here and _visible(process) and _process_start(process["pid"]) == process["start"]


def _visible(process: Mapping[str, Any]) -> bool:
    return process.get("namespace", "") == _pid_namespace()


def acquire(
    backend: LeaseBackend,
    *,
    ttl: float = TTL_SECONDS,
    done: Callable[[], bool] = lambda: False,
    waiting: Callable[[Holder], None] = lambda holder: None,
    poll: float = 0.2,
) -> Lease | None:
    """The lease, or None as soon as `done()` says that another did the work.

    Blocks while a worker that is not known to be dead holds it; `waiting(holder)` is called once
    per new holder.
    """
    observed: Beat | None = None
    since = 0.0
    waits_for = None
    while True:
        if done():
            return None
        lease = backend.claim()
        if lease is not None:
            return lease
        holder = backend.holder()
        if holder is None:
            continue
        if holder["token"] != waits_for:
            waits_for = holder["token"]
            waiting(holder)
        beat = beat_of(holder)
        now = time.monotonic()
        if observed != beat:
            observed, since = beat, now
        silent = now - since > ttl and not is_alive(holder)
        if silent or is_dead(holder):
            backend.break_stale(holder)
            observed = None
            continue
        time.sleep(poll)


def free_if_dead(backend: LeaseBackend) -> bool:
    """Frees a lease whose holder is known to be dead. Waiters do it themselves; this is for keys
    that nobody waits for."""
    holder = backend.holder()
    if holder is None or not is_dead(holder):
        return False
    backend.break_stale(holder)
    lease = backend.claim()
    if lease is not None:
        lease.release()
    return True


class FileLeaseBackend:
    """A file that exists while the lease is held."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)

    def claim(self) -> Lease | None:
        owner = new_holder()
        # Its holder dies with the machine: what a crash tears or loses costs a waiter the TTL.
        if not create(self._path, json_line(owner), durable=False):
            return None
        return _FileLease(self._path, owner)

    def holder(self) -> Holder | None:
        return read_lease(self._path)

    def break_stale(self, holder: Holder) -> None:
        with _lock(self._path):
            held = read_lease(self._path)
            if held is not None and beat_of(held) == beat_of(holder):
                self._path.unlink(missing_ok=True)


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Whoever changes a lease that exists holds this: a look and the change that follows it are
    one. The kernel frees it with its process."""
    with path.with_name(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def beat_of(holder: Holder) -> Beat:
    """What moves with every heartbeat and every change of hands."""
    return holder["token"], holder["beat"]
