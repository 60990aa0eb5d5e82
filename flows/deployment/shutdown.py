"""Ending soon after SIGTERM, whatever the main thread is doing.

SIGTERM raises an exception between any two instructions of the main thread: Foundry's, Prefect's, a
library's. One that is raised while a lock changes hands leaves it taken for ever, and a request to
a server that is gone is tried again for minutes. Being killed costs nothing that matters (see
docs/faults.md), so a run that does not end after the signal kills itself.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

from flows.prefect.flows import TerminationSignal

# A stage has 10 s to end by itself, one elsewhere 20 s.
GRACE_SECONDS = 45.0


@contextlib.contextmanager
def ends_on_sigterm(grace: float = GRACE_SECONDS) -> Iterator[None]:
    """SIGTERM raises TerminationSignal in the block, and from then on the block has `grace` seconds
    to be left; then the process ends with 143, as killed by that signal. Ctrl-C is left alone: who
    typed it is there to type more, and the process may be a notebook's. In other threads than the
    main one, which signals do not reach, nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    left = threading.Event()
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    # Written to by the C handler: it needs no main thread that gets to run Python.
    woken = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    handler = signal.signal(signal.SIGTERM, _terminate)
    threading.Thread(target=_watch, args=(reader, left, grace), daemon=True).start()
    try:
        yield
    finally:
        left.set()
        signal.signal(signal.SIGTERM, handler)
        signal.set_wakeup_fd(woken)
        os.close(writer)


def _terminate(number: int, _frame: Any) -> NoReturn:
    raise TerminationSignal(signal=number)


def _watch(reader: int, left: threading.Event, grace: float) -> None:
    try:
        while (number := os.read(reader, 1)) and number[0] != signal.SIGTERM:
            pass
        if number and not left.wait(grace):
            text = f"foundry: asked to end (SIGTERM), still busy after {grace:g} s: killed."
            print(text, "The next run takes up what this one left", file=sys.stderr, flush=True)
            os._exit(128 + signal.SIGTERM)
    finally:
        os.close(reader)
