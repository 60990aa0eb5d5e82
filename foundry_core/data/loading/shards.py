"""Shards whose bytes are checked before they are believed, local or fetched into a bounded cache.

A shard is hashed against its manifest when it is first opened, and again whenever its file changes
under a running training (size, mtime or inode): reading a truncated file through an old map would
kill the process with SIGBUS, and a flipped byte decodes into a slightly wrong image. What does not
match is fetched again once where it came from a remote source; then the sample is unreadable.
"""

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from foundry_core.data.loading.remote import CACHE_BYTES, RemoteFolder
from foundry_core.data.shards.description import DESCRIPTION
from foundry_core.data.shards.index import index_path
from foundry_core.data.shards.read import ShardSet
from foundry_core.data.shards.write import DATASET_MANIFEST
from foundry_core.errors import FoundryError
from foundry_core.files import Signature, read_json, sha256_of, signature


class UnreadableSample(FoundryError):
    """This sample's bytes are not what was written; others may be fine. The loader's policy for
    unreadable samples applies to these errors and to no others."""


class CheckedShards:
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
            self._remote.require(DATASET_MANIFEST)
            self._remote.fetch(DESCRIPTION)
            folder = self._remote.folder
        self.folder = folder
        self.shards = ShardSet(folder)
        self._paths = [os.fspath(self.shards.path(n)) for n in range(len(self.shards.shards))]
        if self._remote and any(shard.sha256 is None for shard in self.shards.shards):
            raise FoundryError(
                f"the manifest of {self.source!r} states no digests",
                "convert the dataset, or copy it to a local folder and read it from there",
            )

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_seen": {}, "_failed": {}}

    def __len__(self) -> int:
        return len(self.shards)

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

    def key(self, sample: int) -> str:
        """Of a sample; its shard is checked first, as by every reader below."""
        self._ensure(self.shards.locate(sample)[0])
        return self.shards.key(sample)

    def member(self, sample: int, extension: str) -> memoryview:
        """One member of a sample, a view into the shard."""
        self._ensure(self.shards.locate(sample)[0])
        return self.shards.member(sample, extension)

    def members(self, sample: int) -> dict[str, memoryview]:
        """{extension: view} of a sample."""
        self._ensure(self.shards.locate(sample)[0])
        return self.shards.members(sample)

    def several(self, sample: int, extensions: Sequence[str]) -> list[memoryview]:
        """Some members of one sample, whose shard is looked after once."""
        if extensions:
            self._ensure(self.shards.locate(sample)[0])
        return [self.shards.member(sample, extension) for extension in extensions]

    def peek(self, sample: int, extension: str) -> memoryview:
        """As `member`, without hashing a local shard first: for indices built over all samples."""
        if self._remote:
            return self.member(sample, extension)
        return self.shards.member(sample, extension)

    def verify(self, number: int) -> None:
        """One shard, without decoding it. FoundryError says what is amiss."""
        if self._remote:
            self._ensure(number)
        self.shards.verify_shard(number)

    def where(self, sample: int) -> str:
        """For messages: dataset, shard and key of a sample."""
        number, position = self.shards.locate(sample)
        return f"sample {position} of shard {self.shards.shards[number].shard!r} in {self.source!r}"

    def _ensure(self, number: int) -> None:
        """The shard is there and is what its manifest says. One stat per call once it was seen."""
        now = _signature(self._paths[number])
        if now is not None and self._seen.get(number) == now:
            return
        path = self.shards.path(number)
        failed = self._failed.get(number)
        if failed is not None and failed[0] == now:
            raise failed[1]
        self.shards.forget(number)
        if self._remote is None:
            problem = self._problem(number)
        else:
            with self._remote.locked(path.name):
                problem = self._obtain(number, self._remote)
                if not problem:
                    self._open(number)
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
        tar = self.shards.path(number).name
        if _signature(self.shards.path(number)) is None:
            self.fetched += remote.fetch_shard(tar)
        problem = self._problem(number)
        if problem:
            self.fetched += remote.fetch_shard(tar)
            problem = self._problem(number)
        return problem

    def _open(self, number: int) -> None:
        """Maps a fetched shard at once. Its index has no digest, but carries checksums and the
        tar's size: one that is damaged is dropped, and made anew from the tar."""
        try:
            self.shards.index(number)
        except FoundryError:
            index_path(self.shards.path(number)).unlink(missing_ok=True)
            self.shards.index(number)

    def _forget_evicted(self) -> None:
        """A deleted file keeps its disk space as long as it is mapped."""
        for number in [n for n in self._seen if _signature(self.shards.path(n)) is None]:
            self.shards.forget(number)
            del self._seen[number]

    def _problem(self, number: int) -> str:
        """What is wrong with the shard's file; "" if nothing is."""
        shard, path = self.shards.shards[number], self.shards.path(number)
        if not path.exists():
            return "the file is missing"
        size = path.stat().st_size
        if shard.bytes is not None and size != shard.bytes:
            return f"{size} bytes where the manifest says {shard.bytes} (truncated?)"
        if self._verify and shard.sha256 is not None:
            actual = sha256_of(path)
            if actual != shard.sha256:
                return f"sha256 {actual[:12]}... where the manifest says {shard.sha256[:12]}..."
        return ""


def _signature(path: str | Path) -> Signature | None:
    try:
        return signature(os.stat(path))
    except FileNotFoundError:
        return None
