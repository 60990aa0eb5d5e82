"""Shards whose bytes are checked before they are believed, local or fetched into a bounded cache.

A shard is hashed against its manifest when it is first opened, and again whenever its file changes
under a running training (size, times or inode): a flipped byte decodes into a slightly wrong image.
What does not match is fetched again once where it came from a remote source; then the sample is
unreadable.
"""

import os
from functools import cached_property
from pathlib import Path
from typing import Any

from foundry_core.data.loading.remote import CACHE_BYTES, RemoteFolder
from foundry_core.data.shards.derived import shard_index
from foundry_core.data.shards.description import DESCRIPTION
from foundry_core.data.shards.files import OPEN_FILES, OpenFile, file_state
from foundry_core.data.shards.index import index_path, npz_path
from foundry_core.data.shards.packed import DATASET_INDEX, IndexFile, Section, write_index
from foundry_core.data.shards.read import ShardSet
from foundry_core.data.shards.write import DATASET_MANIFEST
from foundry_core.errors import FoundryError
from foundry_core.files import read_json

_CHANGES = 3


class UnreadableSample(FoundryError):
    """This sample's bytes are not what was written; others may be fine. The loader's policy for
    unreadable samples applies to these errors and to no others."""


class CheckedShards(ShardSet):
    """A folder of shards, or a remote one (anything fsspec opens, such as s3://bucket/prefix)."""

    def __init__(
        self,
        source: str | os.PathLike,
        *,
        verify: bool = True,
        cache: Path | None = None,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.source = os.fspath(source)
        self.fetched = 0
        self._verify = verify
        self._failed: dict[int, tuple[bytes | None, UnreadableSample]] = {}
        self._remote: RemoteFolder | None = None
        folder = Path(self.source)
        if "://" in self.source:
            self._remote = RemoteFolder(self.source, cache=cache, cache_bytes=cache_bytes)
            if not self._remote.fetch(DATASET_MANIFEST):
                raise FoundryError(
                    f"{self.source!r} holds no {DATASET_MANIFEST}",
                    "check the address of the dataset",
                )
            self._remote.fetch(DESCRIPTION)
            folder = self._remote.folder
        super().__init__(folder)
        self._seen: list[bytes | None] = [None] * len(self.shards)
        if self._remote and any(shard.sha256 is None for shard in self.shards):
            raise FoundryError(
                f"the manifest of {self.source!r} states no digests",
                "convert the dataset, or copy it to a local folder and read it from there",
            )

    def __getstate__(self) -> dict[str, Any]:
        fresh = {"_seen": [None] * len(self.shards), "_failed": {}}
        return super().__getstate__() | fresh

    @cached_property
    def info(self) -> dict[str, Any]:
        """dataset.json, or {} (foreign shards have none)."""
        path = self.folder / DESCRIPTION
        try:
            return read_json(path) if path.exists() else {}
        except ValueError as error:
            raise FoundryError(
                f"{path} is not JSON: {error}", "convert the dataset again"
            ) from error

    def beside(self, *names: str) -> Path | None:
        """Where a file beside the shards lies (stats.json, say), fetched if it is remote; None
        where there is none. Further names are files that it goes with."""
        for name in names:
            if self._remote and not (self.folder / name).exists():
                self._remote.fetch(name)
        path = self.folder / names[0]
        return path if path.exists() else None

    def peek(self, sample: int, extension: str) -> memoryview:
        """As `member`, without hashing a local shard first: for indices built over all samples."""
        if self._remote:
            return self.member(sample, extension)
        number, position = self.locate(sample)
        return self._several(number, super()._file(number), position, (extension,))[0]

    def verify(self, number: int) -> None:
        if self._remote:
            self._ensured(number)
        super().verify(number)

    def where(self, sample: int) -> str:
        """For messages: dataset, shard and key of a sample."""
        number, position = self.locate(sample)
        return f"sample {position} of shard {self.shards[number].shard!r} in {self.source!r}"

    def _own_index(self) -> IndexFile | None:
        """A remote one is fetched where the cache holds none of this manifest. None where there is
        no sound one: shards have one each, then."""
        if self._remote is None:
            return super()._own_index()
        for attempt in range(3):
            try:
                index = super()._own_index()
            except FoundryError:
                index = None
            if index is not None and not any(
                self._contradiction(index, number) for number in range(len(self.shards))
            ):
                return index
            if attempt == 2 or not self._remote.fetch(DATASET_INDEX):
                break
        return None

    @cached_property
    def _index(self) -> IndexFile | None:
        return self._own_index() if self._remote else super()._index

    def _section(self, number: int) -> Section:
        """A damaged one of a remote dataset is made anew from the shard."""
        try:
            return super()._section(number)
        except FoundryError:
            if self._remote is None:
                raise
            return self._section_in_memory(number)

    def _section_in_memory(self, number: int) -> Section:
        """What earlier releases wrote beside a remote shard is parsed once, and dropped where it is
        damaged."""
        path = self.path(number)
        if self._remote and number not in self._in_memory and not index_path(path).exists():
            try:
                found = shard_index(path)
            except FoundryError:
                npz_path(path).unlink(missing_ok=True)
                found = shard_index(path)
            write_index(index_path(path), [found], 1)
        return super()._section_in_memory(number)

    def _file(self, number: int) -> OpenFile:
        """One fstat of a shard that is open; what is not what was hashed is hashed."""
        path, seen = self._paths[number], self._seen[number]
        file = OPEN_FILES.get(path)
        if file is not None:
            return file if file.now() == seen else self._ensured(number)
        if seen is not None:
            try:
                file = OPEN_FILES.open(path)
            except FileNotFoundError:
                return self._ensured(number)
            if file.state == seen:
                return file
        return self._ensured(number)

    def _ensured(self, number: int) -> OpenFile:
        """The shard, open, once it is there and is what its manifest says."""
        now = _state(self._paths[number])
        self.forget(number)
        failed = self._failed.get(number)
        if failed is not None and failed[0] == now:
            raise failed[1]
        for _ in range(_CHANGES):
            problem, file = self._checked(number)
            if problem:
                raise self._unreadable(number, problem)
            if file is not None:
                self._seen[number] = file.state
                self._failed.pop(number, None)
                return file
        raise self._unreadable(number, "it changes all the time")

    def _checked(self, number: int) -> tuple[str, OpenFile | None]:
        """What is wrong with a shard, and the shard, open; neither where another took its name
        while it was hashed."""
        if self._remote is not None:
            # Under the lock nobody evicts it; evicted later, it stays readable.
            with self._remote.locked(f"{self.shards[number].shard}.tar"):
                problem = self._obtain(number, self._remote)
                file = None if problem else OPEN_FILES.open(self._paths[number])
            OPEN_FILES.drop_deleted()
            return problem, file
        now = _state(self._paths[number])
        problem = self.damage(number, digest=self._verify)
        if problem:
            return problem, None
        try:
            file = OPEN_FILES.open(self._paths[number])
        except FileNotFoundError:
            return "", None
        return "", file if file.state == now else None

    def _unreadable(self, number: int, problem: str) -> UnreadableSample:
        """The error, remembered until the file changes."""
        error = UnreadableSample(
            f"shard {self._paths[number]!r} of {self.source!r}: {problem}",
            "it was fetched again once and is still wrong: mend the source"
            if self._remote
            else "convert the dataset again, or set data.unreadable.policy=skip",
        )
        self._failed[number] = (_state(self._paths[number]), error)
        return error

    def _obtain(self, number: int, remote: RemoteFolder) -> str:
        """Fetches a shard that is not here, and once more one that is not what it should be."""
        tar = self.path(number).name
        if not self.path(number).exists():
            self.fetched += remote.fetch_shard(tar, indexed=self._index is not None)
        problem = self.damage(number, digest=self._verify)
        if problem:
            self.fetched += remote.fetch_shard(tar, indexed=self._index is not None)
            problem = self.damage(number, digest=self._verify)
        return problem


def _state(path: str) -> bytes | None:
    try:
        return file_state(os.stat(path))
    except FileNotFoundError:
        return None
