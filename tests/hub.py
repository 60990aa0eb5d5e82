"""A Hugging Face hub of our own for tests, as its client's protocol describes it: what is asked of
a dataset at a commit, and what pushes a model. Files over `LARGE` bytes are stored by sha256, as on
the hub; what is pushed so comes by LFS before its commit."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

REPOSITORY = "lab/set"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
PUSHED = "b" * 40
LARGE = 2000
_DATASET = f"/api/datasets/{REPOSITORY}/"
_FILES = f"/datasets/{REPOSITORY}/resolve/"
_MODELS = "/api/models/"


class Hub:
    """The dataset REPOSITORY, and models that are pushed.

    files: what its commit holds. served: what is sent in a file's place, if another. page: entries
    of a listing. asked: paths of all requests. models: name → {file: bytes}; private: of those made
    so; messages: of their commits. token: who may ask, if not anybody.
    """

    def __init__(self, files: Mapping[str, bytes], token: str | None) -> None:
        self.files, self.served = dict(files), dict[str, bytes]()
        self.asked: list[str] = []
        self.token = token
        self.page = 1000
        self.models: dict[str, dict[str, bytes]] = {}
        self.private: set[str] = set()
        self.messages: list[str] = []
        self.stored: dict[str, bytes] = {}

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
def hub_server(
    files: Mapping[str, bytes] | None = None, token: str | None = None
) -> Iterator[tuple[str, Hub]]:
    """(endpoint, the hub) while it runs."""
    hub = Hub(files or {}, token)
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
        self._answer(self._body())

    def do_PUT(self) -> None:
        """A large file, sent where `_batch` said."""
        body = self._body()
        self.hub.stored[hashlib.sha256(body).hexdigest()] = body
        self._send(200, {})

    def _answer(self, body: bytes) -> None:
        split = urlsplit(self.path)
        place, query = unquote(split.path), parse_qs(split.query)
        self.hub.asked.append(f"{self.command} {place}")
        is_dataset = place.startswith((_DATASET, _FILES))
        if self.hub.token and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            error = {"error": "Invalid credentials in Authorization header"}
            return self._send(401, error, {"X-Error-Code": "GatedRepo"} if is_dataset else {})
        if is_dataset:
            return self._dataset(place, query, body)
        if self.command == "POST":
            return self._push(place, body)
        name = place.removeprefix(_MODELS).partition("/revision/")[0]
        if place.startswith(_MODELS) and name in self.hub.models:
            return self._send(200, {"id": name, "sha": "a" * 40, "siblings": []})
        return self._refuse("RepoNotFound")

    def _dataset(self, place: str, query: Mapping[str, list[str]], body: bytes) -> None:
        if COMMIT not in place:
            return self._refuse("RevisionNotFound")
        if place.startswith(_FILES):
            return self._file(place.partition(f"{COMMIT}/")[2])
        if place.startswith(f"{_DATASET}paths-info/"):
            return self._paths(body)
        return self._tree(place.partition(COMMIT)[2].strip("/"), query)

    def _file(self, name: str) -> None:
        if name not in self.hub.files:
            return self._refuse("EntryNotFound")
        entry = self.hub.entry(name)
        tag = entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]
        data = self.hub.served.get(name, self.hub.files[name])
        return self._send(200, data, {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT})

    def _paths(self, body: bytes) -> None:
        asked = parse_qs(body.decode()).get("paths", []) if body[:1] != b"{" else []
        asked = asked or json.loads(body)["paths"]
        found: list[dict[str, Any]] = [self.hub.entry(n) for n in asked if n in self.hub.files]
        found += [
            {"type": "directory", "path": n, "oid": "d" * 40} for n in asked if self.hub.below(n)
        ]
        self._send(200, found)

    def _tree(self, folder: str, query: Mapping[str, list[str]]) -> None:
        names = self.hub.below(folder)
        if not names:
            return self._refuse("EntryNotFound")
        first = int(query.get("cursor", ["0"])[0])
        page = names[first : first + self.hub.page]
        rows: list[dict[str, Any]] = [self.hub.entry(n) for n in page]
        if first == 0 and folder:
            rows.insert(0, {"type": "directory", "path": folder, "oid": "d" * 40})
        headers = {}
        if first + self.hub.page < len(names):
            base = f"{self._root}{urlsplit(self.path).path}"
            following = f"{base}?recursive=True&cursor={first + self.hub.page}"
            headers["Link"] = f'<{following}>; rel="next"'
        return self._send(200, rows, headers)

    def _push(self, place: str, body: bytes) -> None:
        if place == "/api/repos/create":
            return self._create(json.loads(body))
        if place == "/api/validate-yaml":
            head = yaml.safe_load(json.loads(body)["content"].split("---")[1])
            wrong = [] if "license" in head else [{"message": "no license"}]
            return self._send(200, {"errors": wrong, "warnings": []})
        if place.endswith(".git/info/lfs/objects/batch"):
            return self._batch(json.loads(body))
        name, _, action = place.removeprefix(_MODELS).rpartition("/main")[0].rpartition("/")
        if name not in self.hub.models:
            return self._refuse("RepoNotFound")
        if action == "preupload":
            return self._preupload(json.loads(body))
        return self._commit(name, body)

    def _create(self, asked: dict[str, Any]) -> None:
        name = "/".join(asked[part] for part in ("organization", "name") if part in asked)
        if name in self.hub.models:
            return self._send(409, {"error": "exists", "url": f"{self._root}/{name}"})
        self.hub.models[name] = {}
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

    def _commit(self, name: str, body: bytes) -> None:
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                self.hub.messages.append(value["summary"])
            elif line["key"] == "file":
                self.hub.models[name][value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.hub.models[name][value["path"]] = self.hub.stored[value["oid"]]
        url = f"{self._root}/{name}/commit/{PUSHED}"
        self._send(200, {"commitUrl": url, "commitOid": PUSHED, "success": True})

    @property
    def _root(self) -> str:
        return f"http://{self.headers['Host']}"

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _refuse(self, code: str) -> None:
        self._send(404, {}, {"X-Error-Code": code})

    def _send(self, status: int, answer: Any, headers: Mapping[str, str] | None = None) -> None:
        """answer: bytes as they are, else as JSON."""
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        kind = {} if isinstance(answer, bytes) else {"Content-Type": "application/json"}
        self.send_response(status)
        for name, value in {**kind, **(headers or {}), "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)
