"""Foundry's own pages beside Prefect's: the login, and the reports of runs.

A report is told to who knows the server's password, as everything else. The page at its address
holds nothing: its script asks for the report with the password that Prefect's pages keep in the
browser, and shows it in a frame that may run no script, load nothing and read nothing of this
server, since names and texts in a report come from anybody's data.
"""

import asyncio
import re
from pathlib import Path

from flows.prefect.addresses import LOGIN, REPORTS, RUNS
from flows.prefect.http import (
    ASKING,
    CLOSED,
    App,
    Headers,
    Password,
    Receive,
    Scope,
    Send,
    answer,
    digest_source,
)

_FILE = "report.html"
RUN_NAME = re.compile(r"[A-Za-z0-9][\w.=,+-]{0,199}", re.ASCII)
# The part after # never leaves the browser. Prefect's pages look for the password at that name.
_LOGIN_SCRIPT = f"""
localStorage.setItem("prefect-password", btoa(decodeURIComponent(location.hash.slice(1))));
location.replace("{RUNS}");
"""
_REPORT_SCRIPT = (
    ASKING
    + """
const run = location.pathname.split("/")[2];
fetch(location.pathname + "/report.html", {headers, credentials: "omit"}).then(async answer => {
  const text = await answer.text();
  if (!answer.ok) throw new Error(text);
  const frame = document.createElement("iframe");
  frame.setAttribute("sandbox", "");
  frame.srcdoc = text;
  frame.title = "Report of " + run;
  const link = document.createElement("a");
  link.href = "/foundry-run/" + run;
  link.textContent = "← the run's page: stages, curves, rollouts, lineage";
  const line = document.createElement("nav");
  line.append(link);
  document.body.replaceChildren(line, frame);
}).catch(error => { document.getElementById("said").textContent = error.message; });
"""
)
_STYLE = (
    ":root{color-scheme:light dark}html,body{margin:0;height:100%}"
    "body{display:flex;flex-direction:column;font:16px system-ui,sans-serif}"
    "iframe{border:0;width:100%;flex:1;display:block}p{margin:2em}"
    "nav{padding:.4rem 1.25rem;font-size:.875rem}"
)
_DRAWN = "img-src data:; media-src data:; style-src 'unsafe-inline'"


def _page(title: str, body: str, script: str) -> bytes:
    return (
        f'<!doctype html><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
        f"{body}<script>{script}</script>"
    ).encode()


def _policy(script: str) -> str:
    """Of a page with this script and no other."""
    return f"{CLOSED}; script-src {digest_source(script)}; connect-src 'self'; {_DRAWN}"


PASSWORD_WANTED = (
    b"This page is for who knows the server's password: open the link that `foundry serve` prints, "
    b"then this page again.\n"
)


class Pages:
    """An ASGI application before Prefect's. runs: the folder with a folder for each run. password:
    `user:password`, empty for none."""

    def __init__(self, app: App, runs: Path, password: str) -> None:
        self._app, self._runs, self._password = app, runs, Password(password)

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

    async def _report(self, asked: str, headers: Headers, send: Send) -> None:
        run_id, slash, file = asked.partition("/")
        if not RUN_NAME.fullmatch(run_id) or (slash and file != _FILE):
            await answer(404, b"text/plain", b"foundry: there is no such page\n", send)
        elif not slash:
            page = _page(
                "Foundry report", '<p id="said">The report is loaded …</p>', _REPORT_SCRIPT
            )
            await answer(200, b"text/html", page, send, policy=_policy(_REPORT_SCRIPT))
        elif not self._password.shown_in(headers):
            await answer(401, b"text/plain", PASSWORD_WANTED, send)
        else:
            found = await asyncio.to_thread(self._read, run_id)
            if found is None:
                words = f"foundry: {run_id} has no report here: `foundry report {run_id}`\n"
                await answer(404, b"text/plain", words.encode(), send)
            else:
                policy = f"sandbox; {CLOSED}; {_DRAWN}"
                await answer(200, b"text/html", found, send, policy=policy)

    def _read(self, run_id: str) -> bytes | None:
        """A report within the folder of the runs; links out of it lead nowhere."""
        path = self._runs / run_id / _FILE
        try:
            if path.resolve(strict=True) != self._runs.resolve() / run_id / _FILE:
                return None
            return path.read_bytes()
        except OSError:
            return None
