"""SIGTERM as a request: the run saves what it has after the step it is in, then ends."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class StopRequest:
    """Whether this process was asked to end."""

    def __init__(self) -> None:
        self.asked = False

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """For the block's duration SIGTERM asks instead of killing. Only a process's main thread
        may choose that: elsewhere (workers of Ray) whoever started it has chosen already."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGTERM, self._ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before or signal.SIG_DFL)

    @staticmethod
    def end() -> None:
        """Ends as a process does that SIGTERM has ended."""
        raise SystemExit(128 + signal.SIGTERM)
