"""Files of a remote dataset in a local folder of bounded size, which all local processes share.

Whole shards are fetched: a random order touches all of a shard sooner or later, and one request
per shard is what object stores are fast and cheap at.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from foundry_core.bounded_cache import BoundedCache
from foundry_core.data.shards.index import index_path, npz_path
from foundry_core.errors import FoundryError
from foundry_core.files import replacing, sha256_hex
from foundry_core.home import cache_dir
from foundry_core.retry import Retry

CACHE_BYTES = 20 << 30
RETRY = Retry(attempts=2, pause=2.0)


class RemoteUnreachable(FoundryError):
    """The source could not be asked. Unlike wrong bytes this says nothing about a sample, so no
    policy skips it: which samples a run sees must not depend on the network's mood."""


class RemoteFolder:
    """`source` is anything fsspec opens (s3://bucket/prefix); `folder` holds what was fetched."""

    def __init__(
        self, source: str, *, cache: Path | None = None, cache_bytes: int = CACHE_BYTES
    ) -> None:
        self.source = source
        self.folder = (cache or cache_dir() / "shards") / sha256_hex(source)[:24]
        self.folder.mkdir(parents=True, exist_ok=True)
        self._cache = BoundedCache(
            self.folder, cache_bytes, pattern="*.tar", companions=_companions
        )
        self._opened: tuple[int, Any, str] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None}

    def fetch(self, name: str) -> bool:
        """The file, whole or not at all; False where the source has none of that name. A source
        that cannot be asked is asked once more, then RemoteUnreachable."""
        where = f"{self.source}/{name}"
        try:
            RETRY.call(f"fetching {where}", lambda: self._download(name), _may_pass)
        except FileNotFoundError:
            return False
        except Exception as error:  # every fsspec backend raises exceptions of its own
            raise RemoteUnreachable(
                f"{where} cannot be fetched ({RETRY.attempts} attempts): "
                f"{type(error).__name__}: {error}",
                "check the service, credentials and network; the run resumes from its last "
                "checkpoint",
            ) from error
        return True

    def fetch_shard(self, tar: str, *, indexed: bool) -> bool:
        """A shard, under its lock; then room for it: other shards go. indexed: the dataset has an
        index; else the shard's comes with it, if earlier releases wrote one."""
        if not self.fetch(tar):
            return False
        if not indexed:
            self.fetch(npz_path(self.folder / tar).name)
        self._cache.make_room()
        return True

    @contextmanager
    def locked(self, tar: str) -> Iterator[None]:
        """Among the processes that share the folder: one fetches a shard while the others wait and
        find it; nobody deletes it before the holder has opened it. Deleted later, it stays readable
        in the processes that have it mapped."""
        with self._cache.using(tar), self._cache.filling(tar):
            yield

    def _download(self, name: str) -> None:
        filesystem, root = self._filesystem()
        with replacing(self.folder / name) as temporary:
            filesystem.get_file(f"{root}/{name}", os.fspath(temporary))

    def _filesystem(self) -> tuple[Any, str]:
        """Opened per process: its event loop does not survive the fork of a loader worker."""
        if self._opened is None or self._opened[0] != os.getpid():
            from fsspec.core import url_to_fs

            filesystem, root = url_to_fs(self.source, skip_instance_cache=True)
            self._opened = (os.getpid(), filesystem, root)
        return self._opened[1], self._opened[2]


def _may_pass(error: Exception) -> bool:
    """fsspec's backends tell too little apart; that a file is absent they all say alike."""
    return not isinstance(error, FileNotFoundError)


def _companions(tar: Path) -> tuple[Path, ...]:
    return (index_path(tar), npz_path(tar))
