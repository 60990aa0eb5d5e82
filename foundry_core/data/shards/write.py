"""Writing shards: deterministic tars, one index and one manifest per folder.

Writers in parallel leave an index beside each shard; the manifest takes them into the dataset's.
"""

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from foundry_core.data.shards.derived import shard_index
from foundry_core.data.shards.index import build_index, index_path
from foundry_core.data.shards.packed import DATASET_INDEX, Packed, write_index
from foundry_core.data.shards.tar import TarWriter
from foundry_core.errors import FoundryError
from foundry_core.files import write_json_lines

DATASET_MANIFEST = "manifest.jsonl"
_MAX_KEY = 1000
# (key, {extension: bytes})
ShardSample = tuple[str, Mapping[str, bytes]]


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


def write_shard(path: str | os.PathLike, samples: Iterable[ShardSample]) -> ShardInfo:
    """Writes `<path>` (a .tar) and its index from (key, {extension: bytes}) in the given order.

    Members of a sample are sorted by extension, so that a dict's order never reaches the bytes.
    Keys must hold no dot (webdataset would split there) and be unique. Samples are consumed one by
    one: memory stays that of one sample plus the index.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    members: list[tuple[str, int, int]] = []
    keys: set[str] = set()
    with path.open("wb") as stream:
        tar = TarWriter(stream)
        for key, sample in samples:
            _check_sample(key, sample, path)
            if key in keys:
                raise FoundryError(
                    f"two samples of {path.name} have the key {key!r}", "rename one of them"
                )
            keys.add(key)
            for extension in sorted(sample):
                name = f"{key}.{extension}"
                members.append((name, tar.add(name, sample[extension]), len(sample[extension])))
        tar.finish()
    packed = Packed.of(build_index(members, tar.bytes))
    write_index(index_path(path), [packed], 1)
    return ShardInfo(
        shard=path.name.removesuffix(".tar"),
        num_sequences=len(keys),
        bytes=tar.bytes,
        sha256=tar.sha256,
        index=packed.digest.hex(),
    )


class ShardFolderWriter:
    """Takes samples one by one and writes a shard whenever it is full. Holds one shard's samples
    in memory. The manifest appears at `close`: a folder without it is unfinished."""

    def __init__(self, folder: str | os.PathLike, samples_per_shard: int) -> None:
        if samples_per_shard < 1:
            raise FoundryError(f"samples_per_shard is {samples_per_shard}, it must be at least 1")
        self._folder, self._limit = Path(folder), samples_per_shard
        self._waiting: list[ShardSample] = []
        self._shards: list[ShardInfo] = []

    def add(self, key: str, members: Mapping[str, bytes]) -> None:
        """Writes a shard when this sample fills one."""
        self._waiting.append((key, members))
        if len(self._waiting) == self._limit:
            self._flush()

    def close(self) -> list[ShardInfo]:
        """Writes what is left, then the manifest."""
        if self._waiting:
            self._flush()
        write_manifest(self._folder, self._shards)
        return self._shards

    def _flush(self) -> None:
        path = self._folder / f"{shard_name(len(self._shards))}.tar"
        self._shards.append(write_shard(path, self._waiting))
        self._waiting = []


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


def renumber_shards(folder: str | os.PathLike, shards: Sequence[ShardInfo]) -> list[ShardInfo]:
    """Numbers the non-empty shards 0, 1, 2, ... and deletes the empty ones, keeping the order.

    Parallel writers name shards before they know what will be skipped; a gap in the numbers would
    look like a lost file.
    """
    folder = Path(folder)
    kept: list[ShardInfo] = []
    for shard in shards:
        source = folder / f"{shard.shard}.tar"
        if shard.num_sequences == 0:
            source.unlink()
            index_path(source).unlink(missing_ok=True)
            continue
        target = folder / f"{shard_name(len(kept))}.tar"
        if target != source:
            os.replace(source, target)
            with contextlib.suppress(FileNotFoundError):
                os.replace(index_path(source), index_path(target))
        kept.append(replace(shard, shard=target.name.removesuffix(".tar")))
    return kept


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


def _check_sample(key: str, sample: Mapping[str, bytes], path: Path) -> None:
    if fault := key_fault(key):
        raise FoundryError(f"sample key {key!r} in {path.name} is not usable", fault)
    for extension in sample or ("",):
        if not extension or "/" in extension or not extension.isprintable():
            raise FoundryError(
                f"sample {key!r} in {path.name} cannot have the member {extension!r}",
                "a sample has members, and their extensions neither slashes nor line breaks",
            )
