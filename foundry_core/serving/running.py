"""A front-end at work in a thread of its own."""

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from foundry_core.serving.frontends.base import FrontEnd
    from foundry_core.serving.server import PolicyServer

_POLL_SECONDS = 0.2
_STOP_SECONDS = 10.0


class Running(threading.Thread):
    """port: once it is ready. over: set when it ended by itself; error: why."""

    def __init__(
        self,
        front: "FrontEnd",
        server: "PolicyServer",
        stop: threading.Event,
        over: threading.Event,
    ) -> None:
        super().__init__(name=front.kind, daemon=True)
        self.front, self.port = front, 0
        self._server, self._halt, self._over = server, stop, over
        self._ready = threading.Event()
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self.front.serve(self._server, self._halt, self._is_ready)
        except Exception as error:
            self.error = error
        finally:
            self._ready.set()
            self._over.set()

    def wait_ready(self) -> None:
        while not self._ready.wait(_POLL_SECONDS):
            pass
        if self.error is not None:
            raise self.error

    def join(self, timeout: float | None = _STOP_SECONDS) -> None:
        if self.ident is not None:
            super().join(timeout)

    def _is_ready(self, port: int) -> None:
        self.port = port
        self._ready.set()
