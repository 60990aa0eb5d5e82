"""Writing shards: deterministic tars, one index and one manifest per folder.

Writers in parallel leave an index beside each shard; the manifest takes them into the dataset's.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TypeAlias

from foundry_core.data.shards.derived import shard_index
from foundry_core.data.shards.index import build_index, index_path
from foundry_core.data.shards.packed import DATASET_INDEX, Packed, write_index
from foundry_core.data.shards.tar import TarWriter
from foundry_core.errors import FoundryError
from foundry_core.files import write_json_lines

DATASET_MANIFEST = "manifest.jsonl"
_MAX_KEY = 1000
# The bytes, or what gives them when it is their turn.
Member: TypeAlias = bytes | Callable[[], bytes]
# (key, {extension: member})
ShardSample: TypeAlias = tuple[str, Mapping[str, Member]]


@dataclass(frozen=True, kw_only=True)
class ShardInfo:
    """One manifest line; `bytes` and `sha256` are None for foreign shards that state neither.
    index: sha256 of the shard's section in the dataset's index; None where there was no such."""

    shard: str
    num_sequences: int
    bytes: int | None = None
    sha256: str | None = None
    index: str | None = None


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
        self._keys: dict[str, None] = {}

    @property
    def samples(self) -> int:
        return len(self._keys)

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    @property
    def bytes(self) -> int:
        """Written so far: where the next sample begins."""
        return self._tar.bytes

    def add(self, key: str, sample: Mapping[str, Member]) -> None:
        """{extension: bytes}, sorted by extension, so that a dict's order never reaches the bytes.
        Keys must hold no dot (webdataset would split there) and be unique in a shard."""
        _check_sample(key, sample, self.path)
        if key in self._keys:
            raise FoundryError(
                f"two samples of {self.path.name} have the key {key!r}", "rename one of them"
            )
        self._keys[key] = None
        for extension in sorted(sample):
            member, name = sample[extension], f"{key}.{extension}"
            data = member() if callable(member) else member
            self._members.append((name, self._tar.add(name, data), len(data)))

    @contextmanager
    def whole(self) -> Iterator[None]:
        """What the block adds is taken back when it raises."""
        mark, members, samples = self._tar.mark(), len(self._members), self.samples
        try:
            yield
        except BaseException:
            self._tar.back_to(mark)
            del self._members[members:]
            while self.samples > samples:
                self._keys.popitem()
            raise

    def close(self) -> ShardInfo:
        """Ends the tar and writes its index."""
        self._tar.finish()
        self._stream.close()
        packed = Packed.of(build_index(self._members, self._tar.bytes))
        write_index(index_path(self.path), [packed], 1)
        return ShardInfo(
            shard=self.path.name.removesuffix(".tar"),
            num_sequences=self.samples,
            bytes=self._tar.bytes,
            sha256=self._tar.sha256,
            index=packed.digest.hex(),
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
    """The index of the dataset, then manifest.jsonl: a line per shard, in the published keys. The
    indices of single shards are gone then."""
    folder = Path(folder)
    tars = [folder / f"{shard.shard}.tar" for shard in shards]
    rows = write_index(folder / DATASET_INDEX, map(shard_index, tars), len(tars))
    stated = [replace(s, index=row.digest.hex()) for s, row in zip(shards, rows, strict=True)]
    lines = ({k: v for k, v in asdict(s).items() if v is not None} for s in stated)
    write_json_lines(folder / DATASET_MANIFEST, lines)
    for tar in tars:
        index_path(tar).unlink(missing_ok=True)


def key_fault(key: str) -> str:
    """Why a sample cannot be called so; "" where it can. Whoever unpacks the tar gets files of
    these names, and webdataset splits them at the first dot behind the last slash."""
    *folders, base = key.split("/")
    if not base or "." in base or {"", ".", ".."} & set(folders):
        return "keys are non-empty, relative, and hold neither dots nor line breaks"
    if not key.isprintable():
        return "keys hold neither line breaks nor other characters that do not print"
    if len(key.encode()) > _MAX_KEY:
        return f"keys have at most {_MAX_KEY} bytes"
    return ""


def _check_sample(key: str, sample: Mapping[str, Member], path: Path) -> None:
    if fault := key_fault(key):
        raise FoundryError(f"sample key {key!r} in {path.name} is not usable", fault)
    for extension in sample or ("",):
        if not extension or "/" in extension or not extension.isprintable():
            raise FoundryError(
                f"sample {key!r} in {path.name} cannot have the member {extension!r}",
                "a sample has members, and their extensions neither slashes nor line breaks",
            )
