"""Which process works on what: one small file per run, job and service under <home>/processes.

A run whose process was killed says nothing any more; this file lets `status`, `cancel` and the
reaper know a dead one from a slow one. It is removed at a normal end, so a file whose process is
gone means a death that nobody has tidied up after.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from foundry_core.files import read_json, write_json
from foundry_core.home import home_dir
from foundry_core.store.lease import Process, is_dead, process_identity

# The process that a child must not outlive.
PARENT = "FOUNDRY_PARENT_PID"

# run: a pipeline run (id: run id). flow-run: a process of Prefect's (id: flow run id).
# ray-job: a submitted job's coordinator (id: submission id). serve: `foundry serve` (id: port);
# service: its children.
Kind = Literal["run", "flow-run", "ray-job", "serve", "service"]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A recorded process. facts: what the writer added, e.g. flow run ids, the store, a key."""

    path: Path
    kind: Kind
    id: str
    process: Process
    facts: dict[str, Any]

    @property
    def dead(self) -> bool:
        """Known to be dead; a process of another host never is."""
        return is_dead(self.process)

    @property
    def local(self) -> bool:
        return self.process["host"] == process_identity()["host"]

    def touch(self) -> None:
        """Its time says when the process was last known to live."""
        with contextlib.suppress(FileNotFoundError):
            os.utime(self.path)

    def forget(self) -> None:
        """Removes the file: the process ends as it should."""
        self.path.unlink(missing_ok=True)


def folder() -> Path:
    """Where the files of this home lie."""
    return home_dir() / "processes"


def record(
    kind: Kind, name: str, pid: int | None = None, *, facts: Mapping[str, Any] | None = None
) -> Entry:
    """Writes the file of this process, or of the child `pid`."""
    path = folder() / f"{kind}-{name}.json"
    content: dict[str, Any] = {"kind": kind, "id": name, "process": process_identity(pid)}
    content["facts"] = dict(facts or {})
    write_json(path, content)
    return Entry(path=path, **content)


@contextlib.contextmanager
def recorded(kind: Kind, name: str, *, facts: Mapping[str, Any] | None = None) -> Iterator[Entry]:
    """The file exists while the block runs, and stays when the process dies in it."""
    entry = record(kind, name, facts=facts)
    try:
        yield entry
    finally:
        entry.forget()


def entries(kind: Kind | None = None) -> list[Entry]:
    """Every recorded process, dead ones too."""
    found = []
    for path in sorted(folder().glob(f"{kind}-*.json" if kind else "*.json")):
        # Removed meanwhile by its process, or half readable on a network drive: not there.
        with contextlib.suppress(OSError, ValueError):
            entry = Entry(path=path, **read_json(path))
            if kind in (None, entry.kind):
                found.append(entry)
    return found


def stop(entry: Entry, number: int = signal.SIGTERM, patience: float = 20.0) -> bool:
    """Asks a local process to end, and kills it after `patience` seconds; False when it was dead or
    is out of reach on another host."""
    if not entry.local or entry.dead:
        return False
    pid = entry.process["pid"]
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
    if not wait_until(lambda: entry.dead, patience, 0.1):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return True


def wait_until(done: Callable[[], bool], seconds: float, poll: float) -> bool:
    """Whether `done()` came true within so many seconds; asked every `poll` seconds."""
    deadline = time.monotonic() + seconds
    while not (came := done()) and time.monotonic() < deadline:
        time.sleep(poll)
    return came
