"""A Hugging Face hub of our own for tests: what its clients ask of a dataset at a commit, over
HTTP. It knows one repository; files over `LARGE` bytes are stored by sha256, as on the hub."""

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

REPOSITORY = "lab/set"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = 2000


class Hub:
    """files: what the commit holds. served: what is sent in its place, if another. asked: paths of
    all requests. token: who must be asking, if anybody."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files, self.served = dict(files), dict[str, bytes]()
        self.asked: list[str] = []
        self.token: str | None = None
        self.page = 1000

    def entry(self, name: str) -> dict[str, Any]:
        data = self.files[name]
        blob = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
        found = {"type": "file", "path": name, "size": len(data), "oid": blob}
        if len(data) > LARGE:
            lfs = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
            found |= {"oid": "f" * 40, "lfs": lfs}
        return found

    def below(self, folder: str) -> list[str]:
        return sorted(n for n in self.files if not folder or n.startswith(f"{folder}/"))


@contextmanager
def hub_server(files: Mapping[str, bytes]) -> Iterator[tuple[str, Hub]]:
    """(endpoint, the hub) while it runs."""
    hub = Hub(files)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None: ...

    def do_HEAD(self) -> None:
        self._answer(b"")

    def do_GET(self) -> None:
        self._answer(b"")

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def _answer(self, body: bytes) -> None:
        split = urlsplit(self.path)
        place, query = unquote(split.path), parse_qs(split.query)
        self.hub.asked.append(f"{self.command} {place}")
        if self.hub.token and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            return self._send(401, b"{}", {"X-Error-Code": "GatedRepo"})
        api, files = f"/api/datasets/{REPOSITORY}/", f"/datasets/{REPOSITORY}/resolve/"
        if not place.startswith((api, files)):
            return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        if COMMIT not in place:
            return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        if place.startswith(files):
            return self._file(place.partition(f"{COMMIT}/")[2])
        if place.startswith(f"{api}paths-info/"):
            return self._paths(body)
        return self._tree(place.partition(COMMIT)[2].strip("/"), query)

    def _file(self, name: str) -> None:
        if name not in self.hub.files:
            return self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})
        entry = self.hub.entry(name)
        tag = entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]
        data = self.hub.served.get(name, self.hub.files[name])
        self._send(200, data, {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT})

    def _paths(self, body: bytes) -> None:
        asked = parse_qs(body.decode()).get("paths", []) if body[:1] != b"{" else []
        asked = asked or json.loads(body)["paths"]
        found: list[dict[str, Any]] = [self.hub.entry(n) for n in asked if n in self.hub.files]
        found += [
            {"type": "directory", "path": n, "oid": "d" * 40} for n in asked if self.hub.below(n)
        ]
        self._send(200, json.dumps(found).encode())

    def _tree(self, folder: str, query: Mapping[str, list[str]]) -> None:
        names = self.hub.below(folder)
        if not names:
            return self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})
        first = int(query.get("cursor", ["0"])[0])
        page = names[first : first + self.hub.page]
        rows: list[dict[str, Any]] = [self.hub.entry(n) for n in page]
        if first == 0 and folder:
            rows.insert(0, {"type": "directory", "path": folder, "oid": "d" * 40})
        headers = {}
        if first + self.hub.page < len(names):
            base = f"http://{self.headers['Host']}{urlsplit(self.path).path}"
            following = f"{base}?recursive=True&cursor={first + self.hub.page}"
            headers["Link"] = f'<{following}>; rel="next"'
        return self._send(200, json.dumps(rows).encode(), headers)

    def _send(self, status: int, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
