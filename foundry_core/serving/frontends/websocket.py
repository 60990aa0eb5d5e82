"""What the WebSocket protocols share: a bounded server on a loop of its own, health over HTTP, who
may come in, and how it ends."""

import asyncio
import contextlib
import json
import logging
import threading
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from foundry_core.errors import FoundryError
from foundry_core.serving.access import allowed
from foundry_core.serving.frontends.base import FrontEnd
from foundry_core.serving.wire import MESSAGE_BYTES

if TYPE_CHECKING:
    from foundry_core.serving.server import PolicyServer

_QUEUE = 4
"""Messages of one connection that wait to be read; more wait at the client."""
_TOO_BIG = 1009
Handler = Callable[[Any, str], Awaitable[None]]
_LOG = logging.getLogger(__name__)


class _InALine(logging.Filter):
    """Whoever connects and says nothing, as a probe of the port does, is no fault of the server
    and worth no traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.getMessage() == "opening handshake failed" and record.exc_info:
            error = record.exc_info[1]
            why = one_line(error) if error else "unknown"
            record.msg = f"a connection was no client's: opening handshake failed ({why})"
            record.args = record.exc_info = None
        return True


_LOG.addFilter(_InALine())


def serve_websocket(
    front: FrontEnd,
    server: "PolicyServer",
    handler: Handler,
    pages: Mapping[str, Callable[[], Any]],
    stop: threading.Event,
    ready: Callable[[int], None],
) -> None:
    """Runs `handler(connection, client)` for every connection until `stop`. pages: path → what GET
    answers, text or JSON; without a token, for they are asked by what watches over servers."""
    asyncio.run(_serve(front, server, handler, pages, stop, ready))


async def _serve(
    front: FrontEnd,
    server: "PolicyServer",
    handler: Handler,
    pages: Mapping[str, Callable[[], Any]],
    stop: threading.Event,
    ready: Callable[[int], None],
) -> None:
    from websockets.asyncio.server import serve
    from websockets.exceptions import ConnectionClosed

    connections: set[Any] = set()
    count = 0

    def process_request(connection: Any, request: Any) -> Any:
        path = urlsplit(request.path).path
        # A page that somebody else's site shows in this user's browser may not drive a robot.
        if "Origin" in request.headers:
            return connection.respond(HTTPStatus.FORBIDDEN, "not for web pages\n")
        if path in pages:
            return _page(connection, pages[path]())
        if not allowed(_shown(request), front.token):
            return connection.respond(HTTPStatus.UNAUTHORIZED, "the token is missing or wrong\n")
        if len(connections) >= server.options.max_clients:
            text = f"{len(connections)} clients are served, and no more than that\n"
            return connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, text)
        return None

    async def connected(connection: Any) -> None:
        nonlocal count
        count += 1
        client = f"{front.kind}/{count}"
        connections.add(connection)
        try:
            await handler(connection, client)
        except ConnectionClosed as closed:
            if closed.sent is not None and closed.sent.code == _TOO_BIG:
                server.complain(client, f"a message is too long: {closed.sent.reason}")
        finally:
            connections.discard(connection)
            server.forget(client)

    try:
        listening = serve(
            connected,
            front.host,
            front.port,
            process_request=process_request,
            logger=_LOG,
            compression=None,
            max_size=MESSAGE_BYTES,
            max_queue=_QUEUE,
            ping_interval=None,
            close_timeout=1,
        )
        async with listening as sockets:
            ready(next(iter(sockets.sockets)).getsockname()[1])
            await asyncio.to_thread(stop.wait)
    except OSError as error:
        raise FoundryError(
            f"{front.kind}: {front.host}:{front.port} cannot be used: {error.strerror or error}",
            "another port, or end what holds this one",
        ) from None


async def answer_of(answer: "Future[dict[str, Any]]") -> dict[str, Any]:
    """Of a PolicyServer's Future, on this loop."""
    return await asyncio.wrap_future(answer)


def one_line(error: BaseException) -> str:
    """What a client is told: never a traceback."""
    text = str(error) if isinstance(error, FoundryError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:1000]


def _shown(request: Any) -> str:
    """The authorization of a header, or of ?token= for clients that can send none."""
    query = parse_qs(urlsplit(request.path).query)
    given: str = request.headers.get("Authorization", "") or query.get("token", [""])[0]
    return given


def _page(connection: Any, value: Any) -> Any:
    text = value if isinstance(value, str) else json.dumps(value)
    response = connection.respond(HTTPStatus.OK, text)
    if not isinstance(value, str):
        with contextlib.suppress(KeyError):
            del response.headers["Content-Type"]
        response.headers["Content-Type"] = "application/json"
    return response
