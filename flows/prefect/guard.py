"""Which requests reach Prefect's server at all. A browser sends what any page tells it to send, to
this machine too: a request must name this server, and come from one of its own pages or from none.
"""

import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from flows.prefect.http import App, Receive, Scope, Send, answer
from foundry_core.endpoint import ip_address


class Guard:
    """An ASGI application before Prefect's. names: host names of this server beside `localhost`
    and this machine's own; numeric addresses are always its own, since a page of another site that
    was made to resolve to this machine (DNS rebinding) is asked for by that site's name."""

    def __init__(self, app: App, names: Iterable[str] = ()) -> None:
        self._app = app
        own = ("localhost", socket.gethostname(), socket.getfqdn(), *names)
        self._names = {name.lower() for name in own}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
        elif why := self._refusal(scope["headers"]):
            await _refuse(scope["type"], why, send)
        else:
            await self._app(scope, receive, send)

    def _refusal(self, headers: Iterable[tuple[bytes, bytes]]) -> str:
        """Why the request may not pass; empty when it may."""
        found: dict[str, list[str]] = {"host": [], "origin": []}
        for name, value in headers:
            if (key := name.decode("latin-1").lower()) in found:
                found[key].append(value.decode("latin-1").lower())
        if len(found["host"]) != 1 or not self._own(found["host"][0]):
            return "this server is not called so (Host)"
        if any(urlsplit(origin).netloc != found["host"][0] for origin in found["origin"]):
            return "a page of another site may not use this server (Origin)"
        return ""

    def _own(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return name in self._names or ip_address(name) is not None


async def _refuse(kind: str, why: str, send: Send) -> None:
    if kind == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": why})
    else:
        await answer(403, b"text/plain", f"foundry: {why}\n".encode(), send)
