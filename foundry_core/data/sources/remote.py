"""Raw data on S3 as local files: readers know nothing of networks.

All of it is fetched into the stage's scratch before the first document is read. That costs disk, at
most as much as the source; in return every reader, every worker and every retry sees plain files.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path, PurePosixPath
from typing import TypeVar

from foundry_core.data.sources.base import RawFormat
from foundry_core.errors import FoundryError
from foundry_core.identity.sources import listing_fingerprint, remote_objects
from foundry_core.objects import Listed, Objects

_THREADS = 16
S = TypeVar("S", bound=RawFormat)


def local_source(source: S, scratch: Path, progress: Callable[..., None]) -> S:
    """`source`, or what it names on S3 as files below `scratch`. An attempt that follows a killed
    one goes on where that was. Raises FoundryError when the source changes meanwhile."""
    if source.remote is None:
        return source
    bucket, objects = remote_objects(source.remote)
    identity = listing_fingerprint(objects)
    folder = scratch / f"source-{identity[:16]}"
    _fetch(bucket, objects, folder, progress)
    if listing_fingerprint(remote_objects(source.remote)[1]) != identity:
        raise FoundryError(f"source {source.remote!r} changed while it was fetched", "run again")
    single = len(objects) == 1 and bucket.uri != source.remote.rstrip("/")
    path = folder / objects[0].name if single else folder
    return source.fetched(str(path))


def _fetch(
    bucket: Objects, objects: list[Listed], folder: Path, progress: Callable[..., None]
) -> None:
    """Files that are there are whole: each comes under another name first."""

    def fetch(listed: Listed) -> int:
        path = folder / _inside(listed.name)
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.part")
            temporary.unlink(missing_ok=True)
            bucket.download(listed.name, temporary, listed.size)
            os.replace(temporary, path)
        return listed.size

    folder.mkdir(parents=True, exist_ok=True)
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
