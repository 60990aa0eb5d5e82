"""Prefect's server, behind the guard. The body of a process of its own."""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator

import uvicorn
from prefect.server.api.server import create_app
from prefect.settings import (
    PREFECT_SERVER_API_KEEPALIVE_TIMEOUT,
    PREFECT_SERVER_API_WEBSOCKET_PING_INTERVAL,
    PREFECT_SERVER_API_WEBSOCKET_PING_TIMEOUT,
    PREFECT_SERVER_LOGGING_LEVEL,
)

from flows import signals
from flows.prefect import secret
from flows.prefect.guard import Guard
from flows.prefect.http import App
from flows.prefect.pages import Pages
from foundry_core.home import home_dir

# Browsers and workers hold connections open: they are not waited for when the server is stopped.
_SHUTDOWN_SECONDS = 2


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        signals.ended_by_parent(lambda: self.handle_exit(signals.STOP, None))
        yield


def serve(host: str, port: int, names: Iterable[str], before: Callable[[App, str], App]) -> None:
    """Returns when its parent told it to end. names: see Guard. before: given the application and
    the password, the one with more pages."""
    password = os.environ.get(secret.SERVER, "")
    pages = Pages(create_app(final=True), home_dir() / "runs", password)
    config = uvicorn.Config(
        Guard(before(pages, password), names),
        host=host,
        port=port,
        timeout_keep_alive=PREFECT_SERVER_API_KEEPALIVE_TIMEOUT.value(),
        ws_ping_interval=PREFECT_SERVER_API_WEBSOCKET_PING_INTERVAL.value(),
        ws_ping_timeout=PREFECT_SERVER_API_WEBSOCKET_PING_TIMEOUT.value(),
        log_level=PREFECT_SERVER_LOGGING_LEVEL.value().lower(),
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )
    _Server(config).run()
