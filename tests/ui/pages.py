"""Foundry's own pages on a free port, as `foundry serve` has them, without Prefect behind them."""

import threading
import time

import uvicorn

from flows.live.app import Live
from flows.prefect.guard import Guard
from flows.prefect.pages import Pages
from foundry_core.home import home_dir
from tests.orchestration import free_port

PASSWORD = "foundry:secret"


async def _nothing(scope, receive, send):
    """Where Prefect would be."""
    if scope["type"] == "http":
        headers = [(b"content-type", b"text/html")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"<!doctype html><p>Prefect"})


class PagesServer:
    """A context manager. url: where they are; `login` is the address that logs a browser in."""

    def __init__(self):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.login = f"{self.url}/foundry-login#{PASSWORD}"
        pages = Pages(_nothing, home_dir() / "runs", PASSWORD)
        app = Guard(Live(pages, PASSWORD))
        config = uvicorn.Config(
            app, host="127.0.0.1", port=self.port, log_level="warning", lifespan="off"
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def __enter__(self):
        self._thread.start()
        deadline = time.monotonic() + 60
        while not self._server.started and time.monotonic() < deadline:
            time.sleep(0.05)
        return self

    def __exit__(self, *_):
        self._server.should_exit = True
        self._thread.join(20)
