"""Writing shards: deterministic tars, an index beside each, one manifest per folder."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

from foundry_core.data.shards.index import build_index, index_path
from foundry_core.data.shards.tar import TarWriter
from foundry_core.errors import FoundryError
from foundry_core.files import write_json_lines

DATASET_MANIFEST = "manifest.jsonl"
# The bytes, or what gives them when it is their turn.
Member: TypeAlias = bytes | Callable[[], bytes]
# (key, {extension: member})
ShardSample: TypeAlias = tuple[str, Mapping[str, Member]]


@dataclass(frozen=True, kw_only=True)
class ShardInfo:
    """One manifest line; `bytes` and `sha256` are None for foreign shards that state neither."""

    shard: str
    num_sequences: int
    bytes: int | None = None
    sha256: str | None = None


def shard_name(number: int) -> str:
    """A shard's file name without .tar."""
    return f"shard_{number:06d}"


class ShardWriter:
    """Writes one shard and its index, sample by sample: memory is that of one member and of the
    index. `close` ends the tar; a writer that is left by an exception leaves a torn file."""

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._stream = self.path.open("wb")
        self._tar = TarWriter(self._stream)
        self._members: list[tuple[str, int, int]] = []
        self.samples = 0

    @property
    def bytes(self) -> int:
        """Written so far: where the next sample begins."""
        return self._tar.bytes

    def add(self, key: str, sample: Mapping[str, Member]) -> None:
        """{extension: bytes}, sorted by extension, so that a dict's order never reaches the bytes.
        Keys must hold no dot (webdataset would split there) and be unique in a shard."""
        _check_key(key, sample, self.path)
        for extension in sorted(sample):
            member, name = sample[extension], f"{key}.{extension}"
            data = member() if callable(member) else member
            self._members.append((name, self._tar.add(name, data), len(data)))
        self.samples += 1

    @contextmanager
    def whole(self) -> Iterator[None]:
        """What the block adds is taken back when it raises."""
        mark, members, samples = self._tar.mark(), len(self._members), self.samples
        try:
            yield
        except BaseException:
            self._tar.back_to(mark)
            del self._members[members:]
            self.samples = samples
            raise

    def close(self) -> ShardInfo:
        """Ends the tar and writes its index."""
        self._tar.finish()
        self._stream.close()
        index_path(self.path).write_bytes(build_index(self._members, self._tar.bytes).to_bytes())
        return ShardInfo(
            shard=self.path.name.removesuffix(".tar"),
            num_sequences=self.samples,
            bytes=self._tar.bytes,
            sha256=self._tar.sha256,
        )


def write_shard(path: str | os.PathLike, samples: Iterable[ShardSample]) -> ShardInfo:
    """Writes `<path>` (a .tar) and its index from (key, {extension: bytes}) in the given order."""
    writer = ShardWriter(path)
    for key, sample in samples:
        writer.add(key, sample)
    return writer.close()


class ShardFolderWriter:
    """Takes samples one by one and begins a new shard whenever one is full. The manifest appears at
    `close`: a folder without it is unfinished."""

    def __init__(self, folder: str | os.PathLike, samples_per_shard: int) -> None:
        if samples_per_shard < 1:
            raise FoundryError(f"samples_per_shard is {samples_per_shard}, it must be at least 1")
        self._folder, self._limit = Path(folder), samples_per_shard
        self._open: ShardWriter | None = None
        self._shards: list[ShardInfo] = []

    def add(self, key: str, members: Mapping[str, Member]) -> None:
        """Closes the shard that this sample fills."""
        if self._open is None:
            self._open = ShardWriter(self._folder / f"{shard_name(len(self._shards))}.tar")
        self._open.add(key, members)
        if self._open.samples == self._limit:
            self._finish()

    def close(self) -> list[ShardInfo]:
        """Closes what is open, then writes the manifest."""
        self._finish()
        write_manifest(self._folder, self._shards)
        return self._shards

    def _finish(self) -> None:
        if self._open is not None:
            self._shards.append(self._open.close())
            self._open = None


def write_manifest(folder: str | os.PathLike, shards: Sequence[ShardInfo]) -> None:
    """manifest.jsonl: a line per shard, in the published keys."""
    lines = ({k: v for k, v in asdict(s).items() if v is not None} for s in shards)
    write_json_lines(Path(folder, DATASET_MANIFEST), lines)


def _check_key(key: str, sample: Mapping[str, Member], path: Path) -> None:
    base = key.rpartition("/")[2]
    if not base or "." in base or "\n" in key or key.startswith("/"):
        raise FoundryError(
            f"sample key {key!r} in {path.name} is not usable",
            "keys are non-empty, relative, and hold neither dots nor line breaks",
        )
    if not sample or any(not extension or "\n" in extension for extension in sample):
        raise FoundryError(
            f"sample {key!r} in {path.name} has no members, or one without an extension"
        )
