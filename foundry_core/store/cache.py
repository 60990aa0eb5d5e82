"""Local copies of files that lie in an object store: verified, bounded, shared by processes.

    <cache>/artifacts/<digest of the file list>/<path>     one entry per set of files

An entry that a stage reads is not evicted (see `foundry_core.bounded_cache`); files appear in it
whole and verified. FOUNDRY_CACHE_GB, 50 by default, is the bound.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from foundry_core.bounded_cache import BoundedCache
from foundry_core.errors import FoundryError
from foundry_core.files import replacing, sha256_of
from foundry_core.home import cache_dir
from foundry_core.store.manifest import File, checked, files_digest
from foundry_core.store.verified import VerifiedDigests

# Writes a file's bytes to a new path; returns the sha256 of what it wrote.
Download = Callable[[File, Path], str]
THREADS = 8
_DEFAULT_GB = 50.0


class CorruptFile(FoundryError):
    """A stored file has other bytes than were committed."""


class FileCache:
    """Copies below `root`, of at most `limit` bytes (default: this home's, FOUNDRY_CACHE_GB)."""

    def __init__(self, root: Path | None = None, limit: int | None = None) -> None:
        self.root = root or cache_dir() / "artifacts"
        self._cache = BoundedCache(self.root, cache_limit() if limit is None else limit)
        self._verified = VerifiedDigests()

    @contextlib.contextmanager
    def reading(self, files: Sequence[File], download: Download) -> Iterator[Path]:
        """A folder with these files, fetched as far as they are absent; not evicted meanwhile.

        Raises CorruptFile when the bytes received are not those that were committed, and
        FoundryError for files that would lie elsewhere.
        """
        checked(f"cache {self.root}", tuple(files))
        with self._cache.using(files_digest(files)) as folder:
            if not folder.is_dir() or self._verified.check(folder, files):
                self._fetch(folder, files, download)
            yield folder

    def put(self, files: Sequence[File], folder: Path) -> None:
        """Moves a folder with exactly these files in, sparing whoever reads them next on this host
        a download. The folder is gone afterwards."""
        with self._cache.using(files_digest(files)) as entry:
            try:
                os.rename(folder, entry)
                self._verified.record(entry, files)
            except OSError as error:
                # Another process was first, or the cache lies on another file system.
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EXDEV):
                    raise
                shutil.rmtree(folder, ignore_errors=True)
        self.make_room()

    def make_room(self, needed: int = 0) -> None:
        """Evicts what nobody reads until `needed` bytes more fit."""
        for name in self._cache.make_room(needed):
            self._verified.forget(self.root / name)

    def _fetch(self, folder: Path, files: Sequence[File], download: Download) -> None:
        with self._cache.filling(folder.name):
            folder.mkdir(exist_ok=True)
            missing = [file for file in files if not _is_whole(folder / file.path, file)]
            self.make_room(sum(file.size for file in missing))
            try:
                with ThreadPoolExecutor(THREADS) as pool:
                    list(pool.map(lambda file: _receive(folder, file, download), missing))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                raise FoundryError(
                    f"no space left for {folder.name[:12]} in the cache {self.root}",
                    "free space, lower FOUNDRY_CACHE_GB or move FOUNDRY_HOME to a larger disk",
                ) from None
            self._verified.record(folder, files)


def cache_limit() -> int:
    """Bytes from FOUNDRY_CACHE_GB."""
    text = os.environ.get("FOUNDRY_CACHE_GB") or str(_DEFAULT_GB)
    try:
        limit = float(text)
    except ValueError:
        limit = -1.0
    if not 0 <= limit < float("inf"):
        raise FoundryError(
            f"FOUNDRY_CACHE_GB = {text!r}: expected a number of gigabytes ≥ 0", "e.g. 200"
        )
    return int(limit * 1e9)


def _receive(folder: Path, file: File, download: Download) -> None:
    _unlink_links(folder, file.path)
    with replacing(folder / file.path) as temporary:
        received = download(file, temporary)
        if received != file.sha256:
            raise CorruptFile(
                f"{file.path}: the store has a file with sha256 {received[:12]}, "
                f"{file.sha256[:12]} was committed",
                "run again: what is corrupt is rebuilt where it is needed",
            )


def _unlink_links(folder: Path, name: str) -> None:
    """What is written goes into this entry, whatever a link on the way there says."""
    path = folder
    for part in name.split("/"):
        path /= part
        if path.is_symlink():
            path.unlink(missing_ok=True)


def _is_whole(path: Path, file: File) -> bool:
    try:
        return path.stat().st_size == file.size and sha256_of(path) == file.sha256
    except FileNotFoundError:
        return False
