"""Where every member of a shard lies, so that samples are read at random; how it is stored and
looked up is `packed`'s.

A sample is a run of neighbouring members with one key; the key is the member's name up to the
first dot of its last path part, the rest is the extension (webdataset's rule).
"""

import os
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from foundry_core.data.shards.tar import BLOCK
from foundry_core.data.shards.walk import walk_tar
from foundry_core.errors import FoundryError

_NPZ_SUFFIX = ".index.npz"
# What NumPy and zipfile raise for damaged bytes.
_UNREADABLE = (
    *(OSError, ValueError, LookupError, EOFError, TypeError, RuntimeError, MemoryError),
    *(OverflowError, zipfile.BadZipFile, zlib.error),
)


def split_name(name: str) -> tuple[str, str]:
    """("dir/key", "camera.jpg") of "dir/key.camera.jpg"; the extension is "" without a dot."""
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return folder + slash + stem, extension


@dataclass(frozen=True, kw_only=True)
class ShardIndex:
    """Members of one shard: names [M], data offsets int64 [M], sizes int64 [M]; sample i owns the
    members starts[i]..starts[i+1] (int64 [N+1]); tar_bytes: size of the tar."""

    names: tuple[str, ...]
    offsets: np.ndarray
    sizes: np.ndarray
    starts: np.ndarray
    tar_bytes: int

    def __len__(self) -> int:
        return len(self.starts) - 1

    @cached_property
    def keys(self) -> tuple[str, ...]:
        return tuple(split_name(self.names[start])[0] for start in self.starts[:-1])

    @cached_property
    def positions(self) -> dict[str, int]:
        """Member name → its number."""
        return {name: number for number, name in enumerate(self.names)}


def build_index(members: Sequence[tuple[str, int, int]], tar_bytes: int) -> ShardIndex:
    """From (name, data offset, size) in file order. Keys may not come back later in the shard."""
    starts: list[int] = []
    previous: str | None = None
    seen: set[str] = set()
    for position, (name, _, _) in enumerate(members):
        key = split_name(name)[0]
        if key != previous:
            if key in seen:
                raise FoundryError(
                    f"sample {key!r} appears twice in one shard, at member {name!r}",
                    "members of a sample must be neighbours and keys unique within a shard",
                )
            seen.add(key)
            starts.append(position)
            previous = key
    return ShardIndex(
        names=tuple(name for name, _, _ in members),
        offsets=np.array([offset for _, offset, _ in members], dtype=np.int64),
        sizes=np.array([size for _, _, size in members], dtype=np.int64),
        starts=np.array([*starts, len(members)], dtype=np.int64),
        tar_bytes=tar_bytes,
    )


def index_path(shard: Path) -> Path:
    """Beside a tar, the index of it alone: until a manifest is written, which takes all of them
    into the dataset's."""
    return shard.with_name(shard.name.removesuffix(".tar") + ".index")


def npz_path(shard: Path) -> Path:
    """Beside a tar, its index as earlier releases wrote it."""
    return shard.with_name(shard.name.removesuffix(".tar") + _NPZ_SUFFIX)


def read_npz_index(path: Path) -> ShardIndex:
    """An index of an earlier release. FoundryError where it is not one, or contradicts itself."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            names = stored["names"].tobytes().decode()
            index = ShardIndex(
                names=tuple(names.split("\n")) if names else (),
                offsets=stored["offsets"],
                sizes=stored["sizes"],
                starts=stored["starts"],
                tar_bytes=int(stored["bytes"][0]),
            )
    except FileNotFoundError:
        raise
    except _UNREADABLE as error:
        raise FoundryError(
            f"shard index {str(path)!r} is unreadable: {error}",
            "delete it: it is made anew from the tar",
        ) from error
    problem = _contradiction(index)
    if problem:
        raise FoundryError(
            f"shard index {str(path)!r} contradicts itself: {problem}",
            "delete it: it is made anew from the tar",
        )
    return index


def _contradiction(index: ShardIndex) -> str:
    """What cannot be true of a tar; "" where all can."""
    columns = (index.offsets, index.sizes, index.starts)
    if any(column.ndim != 1 or column.dtype != np.int64 for column in columns):
        return "a column is no list of integers"
    count = len(index.names)
    if not len(index.offsets) == len(index.sizes) == count or not len(index.starts):
        return "its columns differ in length"
    if index.starts[0] != 0 or index.starts[-1] != count or (np.diff(index.starts) <= 0).any():
        return "its samples are no runs of its members"
    ends = index.offsets + index.sizes
    if count and (
        (index.offsets < BLOCK).any()
        or (index.sizes < 0).any()
        or max(index.offsets.max(), index.sizes.max()) > index.tar_bytes
        or (index.offsets[1:] < ends[:-1] + BLOCK).any()
        or ends[-1] > index.tar_bytes
    ):
        return "its members do not follow each other inside the tar"
    keys = [split_name(name)[0] for name in index.names]
    borders = [0, *(n for n in range(1, count) if keys[n] != keys[n - 1]), count]
    if sorted(set(borders)) != index.starts.tolist() or len({*keys}) != len(index):
        return "a sample's members have different keys, or two samples have one"
    return ""


def scan_tar(shard: Path) -> ShardIndex:
    """Index of any uncompressed tar. One that is damaged or ends early, at a member's border too,
    is refused by name and place."""
    return build_index(list(walk_tar(shard)), os.stat(shard).st_size)
