"""Where every member of a shard lies, so that samples are read at random through one mmap.

A sample is a run of neighbouring members with one key; the key is the member's name up to the
first dot of its last path part, the rest is the extension (webdataset's rule).
"""

import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from foundry_core.data.npy import write_npz
from foundry_core.data.shards.walk import walk_tar
from foundry_core.errors import FoundryError

INDEX_SUFFIX = ".index.npz"


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

    def span(self, sample: int) -> range:
        """Numbers of the members of a sample."""
        return range(int(self.starts[sample]), int(self.starts[sample + 1]))

    def to_bytes(self) -> bytes:
        """An .npz; equal indices are equal bytes."""
        return write_npz(
            {
                "names": np.frombuffer("\n".join(self.names).encode(), dtype=np.uint8),
                "offsets": self.offsets,
                "sizes": self.sizes,
                "starts": self.starts,
                "bytes": np.array([self.tar_bytes]),
            }
        )


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
    """Where the index of a tar lies: beside it."""
    return shard.with_name(shard.name.removesuffix(".tar") + INDEX_SUFFIX)


def load_index(shard: Path) -> ShardIndex:
    """The index beside the shard, or one built by walking the tar's headers (foreign shards).

    Raises FoundryError where the index describes a tar of another size, or the tar is torn.
    """
    path = index_path(shard)
    if not path.exists():
        return scan_tar(shard)
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
    except (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile) as error:
        raise FoundryError(
            f"shard index {str(path)!r} is unreadable: {error}",
            "delete it: it is rebuilt in memory from the tar",
        ) from error
    actual = shard.stat().st_size
    if actual != index.tar_bytes:
        raise FoundryError(
            f"shard {str(shard)!r} has {actual} bytes, its index was written for {index.tar_bytes}",
            "the shard is truncated or was replaced: convert or fetch it again",
        )
    return index


def scan_tar(shard: Path) -> ShardIndex:
    """Index of any uncompressed tar. One that is damaged or ends early, at a member's border too,
    is refused by name and place."""
    return build_index(list(walk_tar(shard)), os.stat(shard).st_size)
