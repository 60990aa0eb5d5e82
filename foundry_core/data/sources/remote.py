"""Raw data on S3 or on the Hugging Face hub as local files: readers know nothing of networks.

All of it is fetched into the stage's scratch before the first document is read. That costs disk, at
most as much as the source; in return every reader, every worker and every retry sees plain files.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path, PurePosixPath
from typing import TypeVar

from foundry_core import hub
from foundry_core.data.sources.base import RawFormat
from foundry_core.errors import FoundryError
from foundry_core.identity.sources import fingerprint, listing_fingerprint, remote_objects
from foundry_core.objects import Listed

_THREADS = 16
S = TypeVar("S", bound=RawFormat)
F = TypeVar("F", Listed, hub.HubFile)


def local_source(source: S, scratch: Path, progress: Callable[..., None]) -> S:
    """`source`, or what it names elsewhere as files below `scratch`. An attempt that follows a
    killed one goes on where that was. Raises FoundryError when the source changes meanwhile."""
    if source.remote is None:
        return source
    fetch = _from_hub if hub.is_hub(source.remote) else _from_s3
    return source.fetched(str(fetch(source.remote, scratch, progress)))


def _from_s3(uri: str, scratch: Path, progress: Callable[..., None]) -> Path:
    bucket, objects = remote_objects(uri)
    identity = listing_fingerprint(objects)
    folder = scratch / f"source-{identity[:16]}"

    def fetch(listed: Listed) -> int:
        path = folder / _inside(listed.name)
        if not path.exists():  # files that are there are whole: each comes under another name
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.part")
            temporary.unlink(missing_ok=True)
            bucket.download(listed.name, temporary, listed.size)
            os.replace(temporary, path)
        return listed.size

    folder.mkdir(parents=True, exist_ok=True)
    _fetch(fetch, objects, progress)
    if listing_fingerprint(remote_objects(uri)[1]) != identity:
        raise FoundryError(f"source {uri!r} changed while it was fetched", "run again")
    single = len(objects) == 1 and bucket.uri != uri.rstrip("/")
    return folder / objects[0].name if single else folder


def _from_hub(uri: str, scratch: Path, progress: Callable[..., None]) -> Path:
    """A commit does not change: what was fetched of it is whole once its digest is right."""
    address = hub.parse(uri)
    folder = scratch / f"source-{fingerprint(uri)[:16]}"

    def fetch(listed: hub.HubFile) -> int:
        _inside(listed.name)
        hub.download(address, listed, folder)
        return listed.size

    folder.mkdir(parents=True, exist_ok=True)
    _fetch(fetch, hub.listed(address), progress)
    return folder / address.inner if not address.pattern else folder


def _fetch(fetch: Callable[[F], int], objects: Sequence[F], progress: Callable[..., None]) -> None:
    """Calls `fetch`, which gives back bytes, for each, some at a time."""
    total, done = sum(listed.size for listed in objects), 0
    pool = ThreadPoolExecutor(_THREADS)
    try:
        for one in as_completed([pool.submit(fetch, listed) for listed in objects]):
            done += one.result()
            progress(done, total, "fetches the source", bytes=done)
    finally:
        pool.shutdown(cancel_futures=True)


def _inside(name: str) -> PurePosixPath:
    """An object may be called anything, `../../.bashrc` too."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise FoundryError(f"object {name!r} cannot be stored as a file", "rename it")
    return path
