"""S3 under fault: a moto server behind a proxy that fails on purpose.

Runs go through the proxy; the checker talks to the server itself, through s3fs and none of the
store's code.
"""

import contextlib
import hashlib
import json
import os
import random
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.faults.checks import NOT_KINDS
from tests.faults.s3_proxy import FaultyProxy
from tests.faults.stores import Harm
from tests.s3 import CREDENTIALS, s3_server

# Probability per request; about one in ten fails in some way.
RATES = {
    "error": 0.03,
    "error_after": 0.02,
    "reset": 0.02,
    "reset_after": 0.02,
    "stall": 0.003,
    "stall_after": 0.003,
    "truncate": 0.01,
}
_TIMEOUT_SECONDS = "1"


class S3Store:
    def __init__(self, folder: Path, seed: str) -> None:
        del folder
        self._seed = seed
        self._stack = contextlib.ExitStack()
        self._root = f"foundry-{uuid.uuid4().hex[:12]}/store"

    def __enter__(self) -> "S3Store":
        endpoint = self._stack.enter_context(s3_server())
        number = random.Random(f"proxy {self._seed}").randrange(2**31)
        self._proxy = self._stack.enter_context(
            FaultyProxy(endpoint, rates=RATES, seed=number, stall_seconds=1.5)
        )
        saved = dict(os.environ)
        self._stack.callback(lambda: (os.environ.clear(), os.environ.update(saved)))
        os.environ |= CREDENTIALS
        os.environ["AWS_ENDPOINT_URL"] = endpoint
        os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
        import s3fs

        s3fs.S3FileSystem.clear_instance_cache()
        self._fs = s3fs.S3FileSystem(endpoint_url=endpoint, use_listings_cache=False)
        self._fs.mkdir(self._root.partition("/")[0])
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def environment(self, home: Path) -> Mapping[str, str]:
        return {
            "FOUNDRY_STORE": f"s3://{self._root}",
            "AWS_ENDPOINT_URL": self._proxy.url,
            "FOUNDRY_S3_TIMEOUT": _TIMEOUT_SECONDS,
        }

    def view(self, home: Path) -> "S3View":
        return S3View(self._fs, self._root)

    def events(self, home: Path) -> str:
        return f"s3://{self._root}/events"

    def harm(self, home: Path, draw: random.Random) -> Harm | None:
        owned = [
            (kind, key, f"{self._root}/{kind}/{key}/{manifest['files_at']}/{file['path']}")
            for (kind, key), manifest in sorted(self.view(home).committed().items())
            if not manifest["linked_to"]
            for file in manifest["files"]
            if file["size"]
        ]
        if not owned:
            return None
        kind, key, path = draw.choice(owned)
        way = draw.choice(("flipped", "cut", "deleted"))
        harm = Harm(kind, key, way, path, self._fs.cat_file(path))
        data = bytearray(harm.original)
        data[draw.randrange(len(data))] ^= 1
        if way == "deleted":
            self._fs.rm_file(path)
        else:
            self._fs.pipe_file(path, bytes(data if way == "flipped" else harm.original[:-1]))
        return harm

    def put_back(self, harm: Harm) -> None:
        self._fs.pipe_file(harm.path, harm.original)

    def summary(self) -> Mapping[str, int]:
        return {f"requests: {name}": count for name, count in self._proxy.counts.items()}


class S3View:
    """See `checks.View`."""

    def __init__(self, fs: Any, root: str) -> None:
        self._fs, self._root = fs, root

    def _manifests(self) -> dict[tuple[str, str], dict]:
        found = {}
        for kind in self._names(""):
            for key in self._names(kind) if kind not in NOT_KINDS else ():
                with contextlib.suppress(FileNotFoundError):
                    data = self._fs.cat_file(f"{self._root}/{kind}/{key}/artifact.json")
                    found[kind, key] = json.loads(data)
        return found

    def _names(self, folder: str) -> list[str]:
        try:
            paths = self._fs.ls(f"{self._root}/{folder}".rstrip("/"), detail=False)
        except FileNotFoundError:
            return []
        return sorted(path.rstrip("/").rpartition("/")[2] for path in paths)

    def committed(self) -> dict[tuple[str, str], dict]:
        found = self._manifests()
        return {
            (kind, key): manifest
            for (kind, key), manifest in found.items()
            if not manifest["linked_to"] or (kind, manifest["linked_to"]) in found
        }

    def damage(self) -> dict[tuple[str, str], str]:
        found = self.committed()
        problems = {name: next(self._problems(name, found), None) for name in found}
        return {name: problem for name, problem in problems.items() if problem}

    def _problems(
        self, name: tuple[str, str], found: Mapping[tuple[str, str], dict]
    ) -> Iterator[str]:
        kind, key = name
        manifest = found[name]
        owner = found[kind, manifest["linked_to"] or key]
        if manifest["key"] != key:
            yield f"says it is {manifest['key'][:12]}"
        for file in manifest["files"]:
            if manifest["linked_to"] and file["role"] == "record":
                continue  # may have been rebuilt since; then the store builds the link again
            path = f"{self._root}/{kind}/{owner['key']}/{owner['files_at']}/{file['path']}"
            try:
                data = self._fs.cat_file(path)
            except FileNotFoundError:
                yield f"{file['path']} is missing"
                continue
            if len(data) != file["size"] or hashlib.sha256(data).hexdigest() != file["sha256"]:
                yield f"{file['path']} is not what was committed"
