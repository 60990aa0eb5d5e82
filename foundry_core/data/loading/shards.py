"""Shards whose bytes are checked before they are believed, local or fetched into a bounded cache.

A shard is hashed against its manifest when it is first opened, and again whenever its file changes
under a running training (size, mtime or inode): reading a truncated file through an old map would
kill the process with SIGBUS, and a flipped byte decodes into a slightly wrong image. What does not
match is fetched again once where it came from a remote source; then the sample is unreadable.
"""

import os
from functools import cached_property
from pathlib import Path
from typing import Any

from foundry_core.data.loading.remote import CACHE_BYTES, RemoteFolder
from foundry_core.data.shards.description import DESCRIPTION
from foundry_core.data.shards.index import ShardIndex, index_path
from foundry_core.data.shards.read import ShardSet
from foundry_core.data.shards.write import DATASET_MANIFEST
from foundry_core.errors import FoundryError
from foundry_core.files import Signature, read_json, signature


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
        self._seen: dict[int, Signature] = {}
        self._failed: dict[int, tuple[Signature | None, UnreadableSample]] = {}
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
        self._paths = [os.fspath(self.path(n)) for n in range(len(self.shards))]
        if self._remote and any(shard.sha256 is None for shard in self.shards):
            raise FoundryError(
                f"the manifest of {self.source!r} states no digests",
                "convert the dataset, or copy it to a local folder and read it from there",
            )

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_seen": {}, "_failed": {}}

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
        return self._several(super()._shard(number), position, (extension,))[0]

    def verify(self, number: int) -> None:
        if self._remote:
            self._ensure(number)
        super().verify(number)

    def where(self, sample: int) -> str:
        """For messages: dataset, shard and key of a sample."""
        number, position = self.locate(sample)
        return f"sample {position} of shard {self.shards[number].shard!r} in {self.source!r}"

    def _shard(self, number: int) -> tuple[ShardIndex, memoryview]:
        self._ensure(number)
        return super()._shard(number)

    def _ensure(self, number: int) -> None:
        """The shard is there and is what its manifest says. One stat per call once it was seen."""
        now = _signature(self._paths[number])
        if now is not None and self._seen.get(number) == now:
            return
        path = self.path(number)
        failed = self._failed.get(number)
        if failed is not None and failed[0] == now:
            raise failed[1]
        self.forget(number)
        if self._remote is None:
            problem = self.damage(number, digest=self._verify)
        else:
            with self._remote.locked(path.name):
                problem = self._obtain(number, self._remote)
                if not problem:
                    self._map(number)
            self._forget_evicted()
        after = _signature(path)
        if problem:
            error = UnreadableSample(
                f"shard {str(path)!r} of {self.source!r}: {problem}",
                "it was fetched again once and is still wrong: mend the source"
                if self._remote
                else "convert the dataset again, or set data.unreadable.policy=skip",
            )
            self._failed[number] = (after, error)
            raise error
        if after is not None:
            self._seen[number] = after
        self._failed.pop(number, None)

    def _obtain(self, number: int, remote: RemoteFolder) -> str:
        """Fetches a shard that is not here, and once more one that is not what it should be."""
        tar = self.path(number).name
        if _signature(self.path(number)) is None:
            self.fetched += remote.fetch_shard(tar)
        problem = self.damage(number, digest=self._verify)
        if problem:
            self.fetched += remote.fetch_shard(tar)
            problem = self.damage(number, digest=self._verify)
        return problem

    def _map(self, number: int) -> None:
        """Maps a fetched shard at once. Its index has no digest, but carries checksums and the
        tar's size: one that is damaged is dropped, and made anew from the tar."""
        try:
            super()._shard(number)
        except FoundryError:
            index_path(self.path(number)).unlink(missing_ok=True)
            super()._shard(number)

    def _forget_evicted(self) -> None:
        """A deleted file keeps its disk space as long as it is mapped."""
        for number in [n for n in self._seen if _signature(self.path(n)) is None]:
            self.forget(number)
            del self._seen[number]


def _signature(path: str | Path) -> Signature | None:
    try:
        return signature(os.stat(path))
    except FileNotFoundError:
        return None
