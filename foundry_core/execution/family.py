"""All that a process has started, also what has left its group and its session (Linux).

A daemon's parent ends on purpose, and it would become a child of init; below a process that adopts
orphans it becomes a child of that one, and is found there.
"""

import contextlib
import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Descendants of this process stay its descendants while it lives."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def descendants(pid: int) -> list[int]:
    """Processes below `pid`, parents first. Empty where there is no /proc."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = stat.read_text().rpartition(")")[2].split()[1]
            children.setdefault(int(parent), []).append(int(stat.parent.name))
    found = [pid]
    for one in found:  # grows as it goes
        found.extend(children.get(one, ()))
    return found[1:]


def kill_descendants(pid: int, *, spare_group: int | None = None) -> None:
    """Kills all that `pid` started and that still runs, but what is in the group `spare_group`.
    Stopped first, so that it starts no more meanwhile."""
    seen: set[int] = set()
    while new := [one for one in descendants(pid) if one not in seen]:
        seen.update(new)
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for one in new:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    if os.getpgid(one) != spare_group:
                        os.kill(one, number)


@contextlib.contextmanager
def followed(pid: int) -> Iterator[Callable[[int], None]]:
    """A function that sends a signal to what `pid` had started when the block began, whosever
    children they have become; never to a stranger that was given one of their pids."""
    with contextlib.ExitStack() as open_handles:
        handles = []
        for one in descendants(pid):
            with contextlib.suppress(ProcessLookupError):
                handles.append(os.pidfd_open(one))
                open_handles.callback(os.close, handles[-1])

        def send(number: int) -> None:
            for handle in handles:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    signal.pidfd_send_signal(handle, number)

        yield send
