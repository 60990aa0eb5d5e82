"""Files of a remote dataset in a local folder of bounded size, which all local processes share.

Whole shards are fetched: a random order touches all of a shard sooner or later, and one request
per shard is what object stores are fast and cheap at.
"""

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from foundry_core.data.shards.index import index_path
from foundry_core.errors import FoundryError
from foundry_core.home import cache_dir

CACHE_BYTES = 20 << 30
_ATTEMPTS, _PAUSE_SECONDS = 2, 1.0


class RemoteUnreachable(FoundryError):
    """The source could not be asked. Unlike wrong bytes this says nothing about a sample, so no
    policy skips it: which samples a run sees must not depend on the network's mood."""


class RemoteFolder:
    """`source` is anything fsspec opens (s3://bucket/prefix); `folder` holds what was fetched."""

    def __init__(
        self, source: str, *, cache: Path | None = None, cache_bytes: int = CACHE_BYTES
    ) -> None:
        self.source = source
        name = hashlib.sha256(source.encode()).hexdigest()[:24]
        self.folder = (cache or cache_dir() / "shards") / name
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / ".locks").mkdir(exist_ok=True)
        self._cache_bytes = cache_bytes
        self._opened: tuple[int, Any, str] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_opened": None}

    def require(self, name: str) -> None:
        if not self.fetch(name):
            raise FoundryError(
                f"{self.source!r} holds no {name}", "check the address of the dataset"
            )

    def fetch(self, name: str) -> bool:
        """The file, whole or not at all; False where the source has none of that name. A source
        that cannot be asked is asked once more, then RemoteUnreachable."""
        temporary = self.folder / f".{name}.{os.getpid()}"
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                filesystem, root = self._filesystem()
                filesystem.get_file(f"{root}/{name}", os.fspath(temporary))
                os.replace(temporary, self.folder / name)
                return True
            except FileNotFoundError:
                return False
            except Exception as error:  # every fsspec backend raises exceptions of its own
                if attempt == _ATTEMPTS:
                    raise RemoteUnreachable(
                        f"{self.source}/{name} cannot be fetched ({_ATTEMPTS} attempts): "
                        f"{type(error).__name__}: {error}",
                        "check the service, credentials and network; the run resumes from its "
                        "last checkpoint",
                    ) from error
                time.sleep(_PAUSE_SECONDS)
            finally:
                temporary.unlink(missing_ok=True)
        return False

    def fetch_shard(self, tar: str) -> bool:
        """A shard with its index, then room for it: other shards go, longest fetched first."""
        if not self.fetch(tar):
            return False
        path = self.folder / tar
        self.fetch(index_path(path).name)
        self._shrink(keep=path)
        return True

    @contextmanager
    def locked(self, tar: str) -> Iterator[None]:
        """Among the processes that share the folder: one fetches a shard while the others wait and
        find it; nobody deletes it before the holder has opened it."""
        with (self.folder / ".locks" / tar).open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def _shrink(self, keep: Path) -> None:
        """Maps of deleted shards stay valid in the processes that hold them."""
        tars = [(path, stat) for path in self.folder.glob("*.tar") if (stat := _stat(path))]
        total = sum(stat.st_size for _, stat in tars)
        for path, stat in sorted(tars, key=lambda item: item[1].st_mtime_ns):
            if total <= self._cache_bytes:
                return
            if path == keep:
                continue
            with (self.folder / ".locks" / path.name).open("w") as stream:
                try:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:  # somebody is about to open it
                    continue
                index_path(path).unlink(missing_ok=True)
                path.unlink(missing_ok=True)
            total -= stat.st_size

    def _filesystem(self) -> tuple[Any, str]:
        """Opened per process: its event loop does not survive the fork of a loader worker."""
        if self._opened is None or self._opened[0] != os.getpid():
            from fsspec.core import url_to_fs

            filesystem, root = url_to_fs(self.source, skip_instance_cache=True)
            self._opened = (os.getpid(), filesystem, root)
        return self._opened[1], self._opened[2]


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None
