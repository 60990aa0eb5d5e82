"""An HTTP proxy in front of an object store that fails on purpose.

    with FaultyProxy("http://127.0.0.1:5000", rates={"error": 0.1, "reset_after": 0.05}) as proxy:
        os.environ["AWS_ENDPOINT_URL"] = proxy.url

Faults, each with its probability per request, drawn from one seeded generator:
    error         500 or 503, and the store never hears of the request
    error_after   the store did it, the client is told 500
    reset         the connection is reset before the store hears of it
    reset_after   the store did it, then the connection is reset: the client cannot know
    stall         nothing happens for `stall_seconds`, then a reset
    stall_after   the store did it, the answer stalls
    truncate      half of the answer's body, then a reset
"""

import contextlib
import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NoReturn
from urllib.parse import urlsplit

FAULTS = ("error", "error_after", "reset", "reset_after", "stall", "stall_after", "truncate")
_XML = (
    b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>%s</Code>'
    b"<Message>injected</Message></Error>"
)
_HOP = {"connection", "keep-alive", "transfer-encoding", "expect", "te", "upgrade"}

Decide = Callable[[str, str], str | None]


class FaultyProxy:
    """Forwards to `target` from a thread per connection; a context manager.

    rates: fault → probability. decide(method, path): instead of rates, the fault of this very
    request or None. `counts` says what happened: faults by name, and "ok". Set `calm` to True to
    forward everything unharmed.
    """

    def __init__(
        self,
        target: str,
        *,
        rates: Mapping[str, float] | None = None,
        decide: Decide | None = None,
        seed: int = 0,
        stall_seconds: float = 5.0,
        port: int = 0,
    ) -> None:
        unknown = set(rates or {}) - set(FAULTS)
        if unknown:
            raise ValueError(f"unknown faults {sorted(unknown)}; known: {', '.join(FAULTS)}")
        parts = urlsplit(target)
        self.target = (parts.hostname or "127.0.0.1", parts.port or 80)
        self.stall_seconds = stall_seconds
        self.counts: Counter[str] = Counter()
        self.calm = False
        self._rates = dict(rates or {})
        self._decide = decide
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        handler = type("Handler", (_Handler,), {"proxy": self})
        self._server = _Server(("127.0.0.1", port), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> "FaultyProxy":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def fault(self, method: str, path: str) -> str | None:
        """The fault of the next request, counted."""
        with self._lock:
            chosen = None
            if not self.calm and self._decide is not None:
                chosen = self._decide(method, path)
            elif not self.calm:
                chosen = self._draw()
            self.counts[chosen or "ok"] += 1
            return chosen

    def _draw(self) -> str | None:
        left = self._random.random()
        for name, rate in self._rates.items():
            left -= rate
            if left < 0:
                return name
        return None

    def code(self) -> tuple[int, bytes]:
        with self._lock:
            return self._random.choice([(500, b"InternalError"), (503, b"SlowDown")])

    def wait(self) -> None:
        self._stopped.wait(self.stall_seconds)


class _Cut(Exception):
    """Ends a connection's thread; the server closes the socket, which sends the reset."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def shutdown_request(self, request: Any) -> None:
        """Closes without the usual shutdown, whose FIN would come before the reset."""
        self.close_request(request)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: FaultyProxy

    def handle(self) -> None:
        with contextlib.suppress(_Cut, OSError):
            super().handle()

    def finish(self) -> None:
        with contextlib.suppress(OSError):
            super().finish()

    def _handle(self) -> None:
        body = self._body()
        fault = self.proxy.fault(self.command, self.path)
        if fault in ("error", "reset", "stall"):
            self._fail(fault)
            return
        try:
            status, headers, answer = self._forward(body)
        except OSError:
            self._reset()
            return
        if fault in ("error_after", "reset_after", "stall_after"):
            self._fail(fault.removesuffix("_after"))
            return
        if fault == "truncate" and (self.command == "HEAD" or len(answer) < 2):
            self._reset()
            return
        self._answer(status, headers, answer, cut=fault == "truncate")

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _handle

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        """The store's answer. Host stays the client's: request signatures cover it."""
        connection = http.client.HTTPConnection(*self.proxy.target, timeout=60)
        with contextlib.closing(connection):
            connection.putrequest(
                self.command, self.path, skip_host=True, skip_accept_encoding=True
            )
            for name, value in self.headers.items():
                if name.lower() not in _HOP | {"content-length"}:
                    connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            response = connection.getresponse()
            return response.status, response.getheaders(), response.read()

    def _answer(
        self, status: int, headers: list[tuple[str, str]], body: bytes, *, cut: bool
    ) -> None:
        self.send_response_only(status)
        for name, value in headers:
            length = name.lower() == "content-length"
            if name.lower() not in _HOP and not (length and self.command != "HEAD"):
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(body[: len(body) // 2] if cut else body)
            self.wfile.flush()
        if cut:
            time.sleep(0.02)  # a reset sent at once would overtake the bytes
            self._reset()

    def _fail(self, fault: str) -> None:
        if fault == "error":
            status, code = self.proxy.code()
            self._answer(status, [("Content-Type", "application/xml")], _XML % code, cut=False)
            return
        if fault == "stall":
            self.proxy.wait()
        self._reset()

    def _reset(self) -> NoReturn:
        """RST instead of FIN: lingering for zero seconds discards what is unsent."""
        linger = struct.pack("ii", 1, 0)
        with contextlib.suppress(OSError):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        raise _Cut

    def log_message(self, *_: Any) -> None:
        pass
