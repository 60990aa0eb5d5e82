"""SIGTERM as a request: the run saves what it has after the step it is in, then ends.

Workers of Ray train in a thread, where no handler can be set, and SIGTERM ends them at once. There
the process that launched them takes it, and rank 0 asks it at each look.
"""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

ENDED = 128 + signal.SIGTERM


class StopRequest:
    """Whether this run was asked to end: by SIGTERM to this process, or as `told` says."""

    def __init__(self, told: Callable[[], bool]) -> None:
        self.asked = False
        self._told = told

    def look(self) -> bool:
        """`asked`, after asking who launched the run."""
        self.asked = self.asked or self._told()
        return self.asked

    def _ask(self) -> None:
        self.asked = True

    def listening(self) -> contextlib.AbstractContextManager[None]:
        """For the block's duration SIGTERM asks instead of killing."""
        return on_sigterm(self._ask)

    @staticmethod
    def end() -> None:
        """Ends as a process does that SIGTERM has ended."""
        raise SystemExit(ENDED)


@contextlib.contextmanager
def on_sigterm(call: Callable[[], None]) -> Iterator[None]:
    """For the block's duration SIGTERM calls instead of killing. Only a process's main thread may
    choose that: elsewhere whoever started it has chosen already."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: call())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)
