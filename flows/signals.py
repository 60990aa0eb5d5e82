"""Ending soon after Ctrl-C, SIGTERM or SIGHUP, whatever the main thread is doing.

The signal raises an exception between any two instructions of the main thread: Foundry's,
Prefect's, a library's. One that is raised while a lock changes hands leaves it taken for ever, and
a request to a server that is gone is tried again for minutes. Being killed costs nothing that
matters (see docs/faults.md), so a command that has not ended some time after the signal kills
itself, and a second Ctrl-C kills it at once.
"""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from foundry_core.execution.family import kill_descendants

# How a service is told to end by the process that started it.
STOP = signal.SIGUSR1
# A stage has 10 s to end by itself, one elsewhere 20 s.
GRACE_SECONDS = 45.0
# Who ends a whole group sends one process the signal twice.
_AGAIN_SECONDS = 0.3
_NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP: ends what Ctrl-C ends."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def exit_code(error: KeyboardInterrupt) -> int:
    """As a shell counts: 130 after Ctrl-C, 143 after SIGTERM."""
    return 128 + (error.number if isinstance(error, Terminated) else signal.SIGINT)


@contextlib.contextmanager
def ended_as_asked() -> Iterator[None]:
    """Around what serves until it is told to stop: that it was is no interruption of its work."""
    try:
        yield
    except KeyboardInterrupt as end:
        end.add_note("stopped, as asked")
        raise


def ended_by_parent(end: Callable[[], object]) -> None:
    """For a service: it ends with its parent, or when that sends STOP, and no sooner. Who signals
    all processes of a container or a batch job would else take the server away from runs that
    record their end. What it starts takes signals as usual."""
    for number in _NUMBERS:
        signal.signal(number, lambda *_: None)
    signal.signal(STOP, lambda *_: end())


class _State:
    """Whether signals wait until something is whole, and the first that does. Signals reach the
    main thread alone, so there is one for the process."""

    held = False
    waiting = 0


def _raise(number: int) -> None:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    if number:
        raise Terminated(number)


def _handle(number: int, _frame: Any) -> None:
    if _State.held:
        _State.waiting = _State.waiting or number
    else:
        _raise(number)


@contextlib.contextmanager
def held() -> Iterator[Callable[[], contextlib.AbstractContextManager[None]]]:
    """In the block no signal raises anything, but in blocks of what it yields. One that came
    meanwhile raises at the start of such a block; at the end of this one it is forgotten, for then
    there is nothing left to end."""
    before, _State.held = _State.held, True
    try:
        yield _released
    finally:
        _State.held, _State.waiting = before, 0


@contextlib.contextmanager
def _released() -> Iterator[None]:
    _State.held = False
    number, _State.waiting = _State.waiting, 0
    try:
        _raise(number)
        yield
    finally:
        _State.held = True


@contextlib.contextmanager
def ends_on_signals(grace: float = GRACE_SECONDS) -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt in the block, SIGTERM and SIGHUP Terminated. From the first
    on, the block has `grace` seconds to be left; after that, or with a second Ctrl-C, the process
    and all that it started are killed. SIGHUP and SIGTERM stay ignored where they were (nohup).
    SIGINT does not: a script that starts a command with `&` hands it on ignored, and means by that
    no run that cannot be ended. In other threads than the main one, which signals do not reach,
    nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    left = threading.Event()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    ignored = {n for n in _NUMBERS if signal.getsignal(n) is signal.SIG_IGN}
    taken = [n for n in _NUMBERS if n == signal.SIGINT or n not in ignored]
    # Written to by the C handler: it needs no main thread that gets to run Python.
    woken = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    before = {number: signal.signal(number, _handle) for number in taken}
    threading.Thread(target=_watch, args=(reader, left, grace), daemon=True).start()
    try:
        yield
    finally:
        left.set()
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(woken)
        os.close(writer)


def _watch(reader: int, left: threading.Event, grace: float) -> None:
    """Until the other end of the pipe is closed. The first signal starts a clock."""
    try:
        first = _next(reader)
        if not first:
            return
        threading.Thread(target=_after, args=(first, left, grace), daemon=True).start()
        began = time.monotonic()
        while number := _next(reader):
            if number == signal.SIGINT and time.monotonic() - began > _AGAIN_SECONDS:
                _kill(number, "interrupted again: killed")
    finally:
        os.close(reader)


def _next(reader: int) -> int:
    """The next of our signals; 0 when the block was left."""
    while (read := os.read(reader, 1)) and read[0] not in _NUMBERS:
        pass
    return read[0] if read else 0


def _after(number: int, left: threading.Event, grace: float) -> None:
    if not left.wait(grace):
        name = signal.Signals(number).name
        _kill(number, f"asked to end ({name}), still busy after {grace:g} s: killed")


@contextlib.contextmanager
def killed_after(seconds: float, what: str) -> Iterator[None]:
    """For what nothing else ends: a library that looks at no interrupt. If the block takes longer,
    the process says so in one line and ends with 2."""

    def kill() -> None:
        print(f"foundry: {what}, killed after {seconds:g} s", file=sys.stderr, flush=True)
        kill_descendants(os.getpid())
        os._exit(2)

    timer = threading.Timer(seconds, kill)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _kill(number: int, why: str) -> None:
    print(f"foundry: {why}. The next run takes up what this one left", file=sys.stderr, flush=True)
    kill_descendants(os.getpid())
    os._exit(128 + number)
