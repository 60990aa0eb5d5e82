"""Foundry's own pages beside Prefect's: the login, and the reports of runs.

A report is told to who knows the server's password, as everything else. The page at its address
holds nothing: its script asks for the report with the password that Prefect's pages keep in the
browser, and shows it in a frame that may run no script, load nothing and read nothing of this
server, since names and texts in a report come from anybody's data.
"""

import asyncio
import base64
import hashlib
import hmac
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from pathlib import Path
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Scope]]
Send = Callable[[Scope], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOGIN, REPORTS = "/foundry-login", "/foundry-report/"
_FILE = "report.html"
_RUN = re.compile(r"[A-Za-z0-9][\w.=,+-]{0,199}", re.ASCII)
# The part after # never leaves the browser. Prefect's pages look for the password at that name.
_LOGIN_SCRIPT = """
localStorage.setItem("prefect-password", btoa(decodeURIComponent(location.hash.slice(1))));
location.replace("/");
"""
_REPORT_SCRIPT = """
const password = localStorage.getItem("prefect-password");
const headers = password ? {Authorization: "Basic " + password} : {};
fetch(location.pathname + "/report.html", {headers, credentials: "omit"}).then(async answer => {
  const text = await answer.text();
  if (!answer.ok) throw new Error(text);
  const frame = document.createElement("iframe");
  frame.setAttribute("sandbox", "");
  frame.srcdoc = text;
  document.body.replaceChildren(frame);
}).catch(error => { document.getElementById("said").textContent = error.message; });
"""
_STYLE = (
    "html,body{margin:0;height:100%}iframe{border:0;width:100%;height:100%;display:block}"
    "p{font:16px sans-serif;margin:2em}"
)
_DRAWN = "img-src data:; media-src data:; style-src 'unsafe-inline'"
_CLOSED = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def _page(title: str, body: str, script: str) -> bytes:
    return (
        f'<!doctype html><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
        f"{body}<script>{script}</script>"
    ).encode()


def _policy(script: str) -> str:
    """Of a page with this script and no other."""
    known = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"{_CLOSED}; script-src 'sha256-{known}'; connect-src 'self'; {_DRAWN}"


def report_page(run_id: str) -> str:
    """The address of a run's report on the server that shows it."""
    return f"{REPORTS}{run_id}"


class Pages:
    """An ASGI application before Prefect's. runs: the folder with a folder for each run. password:
    `user:password`, empty for none."""

    def __init__(self, app: App, runs: Path, password: str) -> None:
        self._app, self._runs = app, runs
        self._expected = b"Basic " + base64.b64encode(password.encode()) if password else b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] != "http" or (path != LOGIN and not path.startswith(REPORTS)):
            await self._app(scope, receive, send)
        elif scope["method"] not in ("GET", "HEAD"):
            await answer(405, b"text/plain", b"foundry: this can only be read\n", send)
        elif path == LOGIN:
            page = _page("Foundry", "", _LOGIN_SCRIPT)
            await answer(200, b"text/html", page, send, policy=_policy(_LOGIN_SCRIPT))
        else:
            await self._report(path.removeprefix(REPORTS), scope["headers"], send)

    async def _report(self, asked: str, headers: Iterable[tuple[bytes, bytes]], send: Send) -> None:
        run_id, slash, file = asked.partition("/")
        if not _RUN.fullmatch(run_id) or (slash and file != _FILE):
            await answer(404, b"text/plain", b"foundry: there is no such page\n", send)
        elif not slash:
            page = _page(
                "Foundry report", '<p id="said">The report is loaded …</p>', _REPORT_SCRIPT
            )
            await answer(200, b"text/html", page, send, policy=_policy(_REPORT_SCRIPT))
        elif not self._allowed(headers):
            words = "This report is for who knows the server's password: open the link that "
            words += "`foundry serve` prints in a terminal, then this page again.\n"
            await answer(401, b"text/plain", words.encode(), send)
        else:
            found = await asyncio.to_thread(self._read, run_id)
            if found is None:
                words = f"foundry: {run_id} has no report here: `foundry report {run_id}`\n"
                await answer(404, b"text/plain", words.encode(), send)
            else:
                policy = f"sandbox; {_CLOSED}; {_DRAWN}"
                await answer(200, b"text/html", found, send, policy=policy)

    def _allowed(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        if not self._expected:
            return True
        given = [value for name, value in headers if name.lower() == b"authorization"]
        return len(given) == 1 and hmac.compare_digest(given[0], self._expected)

    def _read(self, run_id: str) -> bytes | None:
        """A report within the folder of the runs; links out of it lead nowhere."""
        path = self._runs / run_id / _FILE
        try:
            if path.resolve(strict=True) != self._runs.resolve() / run_id / _FILE:
                return None
            return path.read_bytes()
        except OSError:
            return None


async def answer(
    status: int, content_type: bytes, body: bytes, send: Send, policy: str = _CLOSED
) -> None:
    """A whole answer, which no browser takes for anything else, keeps, or shows within a page."""
    headers = [
        (b"content-type", content_type + b"; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"content-security-policy", policy.encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"x-frame-options", b"DENY"),
        (b"referrer-policy", b"no-referrer"),
        (b"cross-origin-resource-policy", b"same-origin"),
        (b"cache-control", b"no-store"),
    ]
    if status == 401:
        headers.append((b"www-authenticate", b'Basic realm="foundry", charset="UTF-8"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
