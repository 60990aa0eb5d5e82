"""Where a conversion by hand writes: a folder that appears whole, or objects on S3.

Until it is done, it lies in a folder of its own (`.NAME.partial` beside the folder; for S3 in the
cache of this home), which a conversion that was killed finds again. On S3 the manifest comes last:
what has none is unfinished.
"""

import fcntl
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from foundry_core.data.convert.pace import Pace
from foundry_core.data.shards.write import DATASET_MANIFEST
from foundry_core.errors import FoundryError
from foundry_core.files import json_line, names_in, sha256_hex, sha256_of, walk
from foundry_core.home import cache_dir
from foundry_core.identity.sources import is_remote
from foundry_core.objects import Objects, connect

_UPLOADED = "uploaded.jsonl"
_THREADS = 8
# What a conversion writes, also into a folder of what is set aside; but for the last it writes.
_OURS = re.compile(
    r"([a-z]+/manifest\.jsonl)|([a-z]+/)?"
    r"(shard_[0-9]{6}\.[a-z.]+|shards\.index|(dataset|report|stats)\.json|stats\.leaves\.npz)"
)


class Places(NamedTuple):
    """out: empty. scratch: as an earlier attempt left it."""

    out: Path
    scratch: Path


@contextmanager
def destination(out: str | os.PathLike[str], progress: Callable[..., None]) -> Iterator[Places]:
    """Folders to convert in; what lies in `out` after the block is what is at the destination, a
    folder or s3://bucket/prefix. FoundryError where that is not empty, or somebody else converts
    there."""
    target = os.fspath(out)
    if not is_remote(target):
        folder = Path(os.path.abspath(target))
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise FoundryError(f"{target!r} is not empty", "name a new folder for the shards")
        with _partial(folder.with_name(f".{folder.name}.partial"), target) as places:
            yield places
            _move(places.out, folder)
        return
    bucket = connect(target.rstrip("/"))
    _check_unfinished(bucket)
    with _partial(cache_dir() / "conversions" / sha256_hex(bucket.uri)[:24], target) as places:
        yield places
        _upload(places, bucket, progress)


@contextmanager
def _partial(folder: Path, target: str) -> Iterator[Places]:
    """Is gone when the block ends, and stays when it raises."""
    places = Places(folder / "out", folder / "scratch")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FoundryError(
                f"another process converts into {target!r}", "wait for it, or name another place"
            ) from None
        shutil.rmtree(places.out, ignore_errors=True)
        for place in places:
            place.mkdir(exist_ok=True)
        yield places
        shutil.rmtree(folder, ignore_errors=True)


def _move(made: Path, folder: Path) -> None:
    """At once where the name is free. A folder that is there may be a disk of its own: then file by
    file, the manifest last."""
    if not folder.exists():
        os.rename(made, folder)
        return
    for name in sorted(names_in(made), key=lambda name: name == DATASET_MANIFEST):
        shutil.move(made / name, folder / name)


def _check_unfinished(bucket: Objects) -> None:
    bucket.check()
    for listed in bucket.find():
        if not _OURS.fullmatch(listed.name):
            raise FoundryError(
                f"{bucket.uri} is not empty: it holds {listed.name}",
                "name a new prefix for the shards",
            )


def _upload(places: Places, bucket: Objects, progress: Callable[..., None]) -> None:
    """All files, the manifest last; what an earlier attempt brought there is left."""
    files = {name: places.out / name for name, _ in walk(places.out)}
    manifest = files.pop(DATASET_MANIFEST)
    log = places.scratch / _UPLOADED
    there = _uploaded(log, bucket)
    pace = Pace(progress, len(files) + 1, "files")

    def put(name: str, path: Path) -> bool:
        """Whether it was there."""
        sha = sha256_of(path)
        if there.get(name) == sha:
            return True
        bucket.upload(path, name)
        found = bucket.look(name)
        if found is None or found.size != path.stat().st_size:
            raise FoundryError(f"{bucket.uri}/{name} is not what was written there", "run again")
        with log.open("a") as stream:  # one write: lines do not mix
            stream.write(json_line({"name": name, "sha256": sha, "tag": found.tag}))
        return False

    pool = ThreadPoolExecutor(_THREADS)
    try:
        for done in as_completed([pool.submit(put, *file) for file in sorted(files.items())]):
            pace.step("uploads", reused=done.result())
    finally:
        pool.shutdown(cancel_futures=True)
    _remove_strangers(bucket, files.keys())
    pace.step("uploads", reused=put(DATASET_MANIFEST, manifest))


def _uploaded(log: Path, bucket: Objects) -> dict[str, str]:
    """{name: sha256} of what was brought there, and has not changed since."""
    tags = {listed.name: listed.tag for listed in bucket.find()}
    found: dict[str, str] = {}
    if log.exists():
        for line in log.read_text().splitlines():
            row = _row(line)
            if row is not None and tags.get(row["name"]) == row["tag"]:
                found[row["name"]] = row["sha256"]
    return found


def _row(line: str) -> Any:
    """None of a line that was cut by a kill."""
    try:
        return json.loads(line)
    except ValueError:
        return None


def _remove_strangers(bucket: Objects, ours: Any) -> None:
    """What another recipe's unfinished conversion left under our names."""
    bucket.delete(*(listed.name for listed in bucket.find() if listed.name not in ours))
