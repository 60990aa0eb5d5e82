"""Leases: at most one living worker per key.

A lease is a create-exclusive file with an owner token and a heartbeat count. A waiter takes it over
only when the holder is known dead (same host and boot, its process gone or replaced) or when the
heartbeat has not moved for `ttl` seconds of the WAITER's monotonic clock: wall clocks of two hosts,
or one set back an hour, never decide. A slow holder keeps its lease as long as its heartbeat
thread lives; one that lost it all the same finds out in `verify` before it commits.
"""

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foundry_core.store.artifact import write_durably

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


@dataclass
class _Observed:
    beat: Any
    since: float


class Lease:
    """A held lease; a context manager that beats until it is left."""

    def __init__(self, path: Path, owner: dict[str, Any]) -> None:
        self._path = path
        self._owner = owner
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name="lease-heartbeat")

    def __enter__(self) -> "Lease":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._holds():
            self._path.unlink(missing_ok=True)

    def verify(self) -> None:
        """Raises LeaseLost unless this process still holds the lease."""
        if not self._holds():
            raise LeaseLost(f"lease {self._path.name[:12]} was taken over by another worker")

    def _holds(self) -> bool:
        held = read_lease(self._path)
        return held is not None and held["token"] == self._owner["token"]

    def _beat(self) -> None:
        count = 0
        while not self._stop.wait(_HEARTBEAT_SECONDS):
            count += 1
            if not self._holds():
                return
            write_durably(self._path, json.dumps(self._owner | {"beat": count}).encode())


def read_lease(path: Path) -> dict[str, Any] | None:
    """The lease's owner, or None. A torn file reads as an owner that never beats."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError:
        return {"token": "torn", "beat": 0, "host": "", "pid": 0, "boot": "", "start": ""}


def holder_is_dead(lease: dict[str, Any]) -> bool:
    """True only when it can be known: same host, and rebooted since or the process is gone."""
    if lease["host"] != socket.gethostname():
        return False
    return lease["boot"] != _boot_id() or _process_start(lease["pid"]) != lease["start"]


def acquire(
    path: Path,
    *,
    ttl: float = TTL_SECONDS,
    settled: Callable[[], bool] = lambda: False,
    waiting: Callable[[dict[str, Any]], None] = lambda holder: None,
    poll: float = 0.2,
) -> Lease | None:
    """The lease, or None as soon as `settled()` says the work was done by another.

    Blocks while a living worker holds it; `waiting(holder)` is called once per new holder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    observed: _Observed | None = None
    told = None
    while True:
        if settled():
            return None
        lease = _create(path)
        if lease is not None:
            return lease
        holder = read_lease(path)
        if holder is None:
            continue
        if holder["token"] != told:
            told = holder["token"]
            waiting(holder)
        beat = (holder["token"], holder.get("beat"))
        now = time.monotonic()
        if observed is None or observed.beat != beat:
            observed = _Observed(beat, now)
        if holder_is_dead(holder) or now - observed.since > ttl:
            _break(path, holder)
            observed = None
            continue
        time.sleep(poll)


def _create(path: Path) -> Lease | None:
    pid = os.getpid()
    owner = {
        "token": uuid.uuid4().hex,
        "host": socket.gethostname(),
        "boot": _boot_id(),
        "pid": pid,
        "start": _process_start(pid),
        "beat": 0,
    }
    temporary = path.with_name(f".{path.name}.{owner['token']}")
    temporary.write_text(json.dumps(owner))
    try:
        # link() fails when the name exists: whole content and exclusivity in one step.
        os.link(temporary, path)
    except FileExistsError:
        return None
    finally:
        temporary.unlink()
    return Lease(path, owner)


def _break(path: Path, holder: dict[str, Any]) -> None:
    """Removes a stale lease; of several waiters only the one that renames it away removes it."""
    grave = path.with_name(f".{path.name}.stale.{uuid.uuid4().hex}")
    try:
        os.rename(path, grave)
    except FileNotFoundError:
        return
    taken = read_lease(grave)
    if taken is not None and taken["token"] != holder["token"]:
        # A new holder slipped in between: give it back its name unless it is taken again.
        with contextlib.suppress(FileExistsError):
            os.link(grave, path)
    grave.unlink(missing_ok=True)


def break_dead(folder: Path) -> list[str]:
    """Removes leases whose holder is known to be dead; their keys. Waiters would do it themselves,
    one by one; this is for keys that nobody waits for."""
    broken = []
    for path in sorted(folder.glob("[!.]*")):
        holder = read_lease(path)
        if holder is not None and holder_is_dead(holder):
            _break(path, holder)
            broken.append(path.name)
    return broken


def process_identity(pid: int | None = None) -> dict[str, Any]:
    """What identifies a process beyond doubt: host, boot, pid and its start. The same fields as a
    lease's owner, so that `holder_is_dead` answers for it."""
    number = os.getpid() if pid is None else pid
    return {
        "host": socket.gethostname(),
        "boot": _boot_id(),
        "pid": number,
        "start": _process_start(number),
    }
