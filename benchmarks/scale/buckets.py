"""Objects in a store on S3. Requests do not depend on where the bucket is; seconds do, and the
stand-in on this machine looks at all its objects for each page of a listing."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from artifacts import artifact
from measured import Clock, Part, Row, growing

from foundry_core.files import sha256_hex
from foundry_core.objects import Objects
from foundry_core.store.base import Store
from foundry_core.store.gc import find_garbage
from foundry_core.store.manifest import MANIFEST, File, scan
from foundry_core.store.open import open_store
from tests.s3 import CREDENTIALS, s3_server

_BUCKET, _FILES, _KIND = "scale", 8, "convert_text"


def measure(folder: Path, objects: int) -> Row:
    """Artifacts of eight files and their artifact.json. A second host is one that has read none of
    them."""
    with _bucket() as (uri, put):
        keys = _fill(put, max(20, objects // (_FILES + 1)))
        store = open_store(uri)
        with _requests() as committed:
            _commit(store)
        with _requests() as planned:
            states = store.states([(_KIND, key) for key in keys[:20]])
        assert all(state.status == "ok" for state in states.values())
        clock = Clock()
        with _requests() as listed:
            assert len(store.artifacts()) == len(keys) + 1
        seconds = clock.wall
        with _requests() as first:
            found = find_garbage(store, keep_runs=0)
        assert found.kept + len(found.to_delete) == len(keys) + 1
        with _requests() as again:
            find_garbage(store, keep_runs=0)
        with _requests() as swept:
            store.sweep(lambda key: False, older_than=0.0, apply=False)
        return {
            "objects": (_FILES + 1) * len(keys),
            "artifacts": len(keys),
            "requests of a commit": committed[0],
            "requests of 20 states": planned[0],
            "requests to list": listed[0],
            "s to list": seconds,
            "requests of gc's look, first on a host": first[0],
            "requests of gc's look, again": again[0],
            "requests to sweep": swept[0],
        }


def _fill(put: Callable[[str, bytes], None], artifacts: int) -> list[str]:
    """Puts what commits leave, object by object; the keys."""
    keys = [sha256_hex(f"{artifacts} {n}") for n in range(artifacts)]
    files = [File(path=f"file-{n}", size=1, sha256=sha256_hex("x")) for n in range(_FILES)]
    for key in keys:
        place = f"{_KIND}/{key}"
        for file in files:
            put(f"{place}/files-a1-0/{file.path}", b"x")
        put(f"{place}/{MANIFEST}", artifact(key, files, files_at="files-a1-0").encoded())
    return keys


def _commit(store: Store) -> None:
    """One artifact as a run commits it."""
    key = sha256_hex("one more")
    attempt, out, _ = store.attempt(key)
    for number in range(_FILES):
        (out / f"file-{number}").write_text(str(number))
    assert store.commit(artifact(key, scan(out), attempt=attempt), out)


@contextmanager
def _requests() -> Iterator[list[int]]:
    """How many were made in the block."""
    counts = [0]
    retry = Objects._retry

    def counting(self: Objects, what: str, call: Callable[[], Any]) -> Any:
        counts[0] += 1
        return retry(self, what, call)

    Objects._retry = counting  # type: ignore[assignment]
    try:
        yield counts
    finally:
        Objects._retry = retry  # type: ignore[method-assign]


@contextmanager
def _bucket() -> Iterator[tuple[str, Callable[[str, bytes], None]]]:
    """(its address, what puts an object below that). Objects go past the stand-in's server, which
    takes ten milliseconds for each."""
    import s3fs
    from moto.core import DEFAULT_ACCOUNT_ID
    from moto.s3.models import s3_backends

    with s3_server() as endpoint:
        os.environ |= {**CREDENTIALS, "AWS_ENDPOINT_URL": endpoint, "FOUNDRY_S3_TIMEOUT": "30"}
        s3fs.S3FileSystem(endpoint_url=endpoint, skip_instance_cache=True).mkdir(_BUCKET)
        held = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]

        def put(name: str, data: bytes) -> None:
            held.put_object(_BUCKET, f"store/{name}", data)

        yield f"s3://{_BUCKET}/store", put


PART = Part(sizes=growing(10_000), measure=measure)
