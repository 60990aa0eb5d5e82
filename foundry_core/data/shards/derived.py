"""Indices of shards that have none of their own kind: made once, kept in the home's cache."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from foundry_core.bounded_cache import BoundedCache
from foundry_core.data.shards.index import index_path, npz_path, read_npz_index, scan_tar
from foundry_core.data.shards.packed import (
    VERSION,
    IndexFile,
    Packed,
    index_bytes,
    read_packed,
    write_index,
)
from foundry_core.errors import FoundryError
from foundry_core.files import sha256_hex, signature
from foundry_core.home import cache_dir, home_dir

_CACHE_BYTES = 4 << 30


def shard_index(shard: Path) -> Packed:
    """Of one tar: from the file beside it that conversions leave for their manifest, or that older
    releases wrote, or by walking the tar (foreign shards).

    Raises FoundryError where the index describes a tar of another size, or the tar is torn.
    """
    own = index_path(shard)
    try:
        if own.exists():
            found = read_packed(own)
        elif npz_path(shard).exists():
            found = Packed.of(read_npz_index(npz_path(shard)))
        else:
            return Packed.of(scan_tar(shard))
        actual = shard.stat().st_size
    except FileNotFoundError as error:
        raise FoundryError(f"there is no shard {str(shard)!r}", "fetch or convert it") from error
    if actual != found.tar_bytes:
        raise FoundryError(
            f"shard {str(shard)!r} has {actual} bytes, its index was written for {found.tar_bytes}",
            "the shard is truncated or was replaced: convert or fetch it again",
        )
    return found


def derived_index(tars: Sequence[Path], stated: Sequence[int | None]) -> IndexFile:
    """Of the tars of a dataset. stated: samples by the manifest; such a shard may be missing or
    torn, which is said of the samples that are read from it, and is no section here. None: it has
    to be counted. One process makes the index while others wait; who has no home has it in memory.
    """
    if not home_dir().is_dir():
        return IndexFile(index_bytes(list(_sections(tars, stated))), "in memory")
    cache = BoundedCache(cache_dir() / "indices", _CACHE_BYTES, pattern="*.index")
    name = f"{_state(tars, stated)}.index"
    with cache.using(name) as path:
        found = _opened(path)
        if found is not None:
            return found
        with cache.filling(name):
            found = _opened(path)
            if found is None:
                write_index(path, _sections(tars, stated), len(tars))
                found = IndexFile.open(path)
    cache.make_room()
    return found


def _opened(path: Path) -> IndexFile | None:
    """None for what is absent, or damaged: it is made again."""
    try:
        return IndexFile.open(path)
    except (FileNotFoundError, FoundryError):
        return None


def _sections(tars: Sequence[Path], stated: Sequence[int | None]) -> Iterator[Packed]:
    for tar, count in zip(tars, stated, strict=True):
        try:
            yield shard_index(tar)
        except FoundryError:
            if count is None:
                raise
            yield Packed(b"", 0, count)


def _state(tars: Sequence[Path], stated: Sequence[int | None]) -> str:
    """Of the tars and the indices beside them, without reading them."""
    rows = [
        (os.fspath(tar), count, *(_seen(path) for path in (tar, index_path(tar), npz_path(tar))))
        for tar, count in zip((Path(os.path.abspath(tar)) for tar in tars), stated, strict=True)
    ]
    return sha256_hex(json.dumps([VERSION, rows]))[:32]


def _seen(path: Path) -> tuple[int, ...]:
    try:
        return signature(os.stat(path))
    except OSError:
        return ()
