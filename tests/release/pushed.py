"""A hub to push to, as its client's protocol describes it: repositories are made, files come in a
commit, large ones by LFS before it."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import yaml

LARGE = 4096


class PushedHub:
    """repositories: name → {file: bytes}. private: of those made so. token: who may write."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.messages: list[str] = []
        self.stored: dict[str, bytes] = {}


@contextmanager
def pushed_hub(token: str) -> Iterator[tuple[str, PushedHub]]:
    """(endpoint, the hub) while it runs."""
    hub = PushedHub(token)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: PushedHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None: ...

    def do_PUT(self) -> None:
        body = self._body()
        self.hub.stored[hashlib.sha256(body).hexdigest()] = body
        self._send(200, {})

    def do_GET(self) -> None:
        if self._allowed():
            repository = self.path.removeprefix("/api/models/").partition("/revision/")[0]
            known = repository in self.hub.repositories
            self._send(200 if known else 404, {"id": repository, "sha": "a" * 40, "siblings": []})

    def do_POST(self) -> None:
        body = self._body()
        if not self._allowed():
            return
        place = unquote(self.path)
        if place == "/api/repos/create":
            return self._create(json.loads(body))
        if place == "/api/validate-yaml":
            head = yaml.safe_load(json.loads(body)["content"].split("---")[1])
            wrong = [] if "license" in head else [{"message": "no license"}]
            return self._send(200, {"errors": wrong, "warnings": []})
        if place.endswith(".git/info/lfs/objects/batch"):
            return self._batch(json.loads(body))
        repository, _, action = (
            place.removeprefix("/api/models/").rpartition("/main")[0].rpartition("/")
        )
        if repository not in self.hub.repositories:
            return self._send(404, {"error": "Repository not found"})
        if action == "preupload":
            return self._preupload(json.loads(body))
        return self._commit(repository, body)

    def _create(self, asked: dict[str, Any]) -> None:
        name = (
            f"{asked['organization']}/{asked['name']}" if "organization" in asked else asked["name"]
        )
        if name in self.hub.repositories:
            return self._send(409, {"error": "exists", "url": f"{self._root}/{name}"})
        self.hub.repositories[name] = {}
        if asked.get("private") or asked.get("visibility") == "private":
            self.hub.private.add(name)
        return self._send(200, {"url": f"{self._root}/{name}", "name": name})

    def _preupload(self, asked: dict[str, Any]) -> None:
        files = [
            {
                "path": one["path"],
                "uploadMode": "lfs" if one["size"] > LARGE else "regular",
                "shouldIgnore": False,
            }
            for one in asked["files"]
        ]
        self._send(200, {"files": files})

    def _batch(self, asked: dict[str, Any]) -> None:
        objects = [
            {
                **one,
                "actions": {"upload": {"href": f"{self._root}/lfs/{one['oid']}", "header": {}}},
            }
            for one in asked["objects"]
        ]
        self._send(200, {"transfer": "basic", "objects": objects})

    def _commit(self, repository: str, body: bytes) -> None:
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                self.hub.messages.append(value["summary"])
            elif line["key"] == "file":
                data = base64.b64decode(value["content"])
                self.hub.repositories[repository][value["path"]] = data
            elif line["key"] == "lfsFile":
                data = self.hub.stored[value["oid"]]
                self.hub.repositories[repository][value["path"]] = data
        url = f"{self._root}/{repository}/commit/{'b' * 40}"
        self._send(200, {"commitUrl": url, "commitOid": "b" * 40, "success": True})

    @property
    def _root(self) -> str:
        return f"http://{self.headers['Host']}"

    def _allowed(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {self.hub.token}":
            return True
        self._send(401, {"error": "Invalid credentials in Authorization header"})
        return False

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _send(self, status: int, answer: Any) -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
