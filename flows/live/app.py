"""The live pages as an ASGI application before the others.

    /foundry-runs                  the list of runs
    /foundry-run/RUN               one run
    /foundry-live/...              what both show, for who has the password (`questions`)

Only reading is answered. Everything that the pages show is text of anybody: it comes as JSON, which
our own script draws as text, or as a picture by its digest.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from flows.prefect.addresses import RUN, RUNS
from flows.prefect.http import CLOSED, App, Headers, Password, Receive, Scope, Send, answer
from flows.prefect.pages import PASSWORD_WANTED, RUN_NAME

if TYPE_CHECKING:
    from flows.live.questions import Questions

T = TypeVar("T")
DATA = "/foundry-live/"


@dataclass(frozen=True, kw_only=True)
class Reply:
    """more: further headers."""

    status: int = 200
    content_type: bytes = b"text/plain"
    body: bytes = b""
    policy: str = CLOSED
    more: Headers = ()


NO_PAGE = Reply(status=404, body=b"foundry: there is no such page\n")
_READ_ONLY = Reply(status=405, body=b"foundry: this can only be read\n")
_WHO = Reply(status=401, body=PASSWORD_WANTED)


class Live:
    """app: whom all other requests go to. password: `user:password`, empty for none."""

    def __init__(self, app: App, password: str) -> None:
        self._app, self._password = app, Password(password)
        self._made: Questions | None = None
        self._lock = threading.Lock()
        # Of its own, few: what pages ask must not keep Prefect's server from its work.
        self._quick = ThreadPoolExecutor(2, thread_name_prefix="live")
        self._slow = ThreadPoolExecutor(2, thread_name_prefix="live-files")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] != "http" or not (path == RUNS or path.startswith((RUN, DATA))):
            await self._app(scope, receive, send)
            return
        reply = await self._reply(scope, path)
        await answer(
            reply.status, reply.content_type, reply.body, send, policy=reply.policy, more=reply.more
        )

    async def _reply(self, scope: Scope, path: str) -> Reply:
        if scope["method"] not in ("GET", "HEAD"):
            return _READ_ONLY
        if path == RUNS:
            return await self._in(self._quick, lambda: _page("runs"))
        if path.startswith(RUN):
            if not RUN_NAME.fullmatch(path.removeprefix(RUN)):
                return NO_PAGE
            return await self._in(self._quick, lambda: _page("run"))
        if not self._password.shown_in(scope["headers"]):
            return _WHO
        asked, query = path.removeprefix(DATA), scope.get("query_string", b"")
        known = [value for name, value in scope["headers"] if name.lower() == b"if-none-match"]
        files = asked.startswith(("file/", "made/", "preview/"))
        pool = self._slow if files else self._quick
        return await self._in(pool, lambda: self._questions().reply(asked, query, known))

    def _questions(self) -> "Questions":
        with self._lock:
            if self._made is None:
                # A second that the server's start saves: statistics, DuckDB.
                from flows.live.questions import Questions

                self._made = Questions()
            return self._made

    async def _in(self, pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, work)


def _page(name: str) -> Reply:
    """The HTML of a page, which holds nothing of any run."""
    from flows.live.shell import shell

    page = shell(name)
    return Reply(content_type=b"text/html", body=page.body, policy=page.policy)
