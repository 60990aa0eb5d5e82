"""Local copies of files that lie in an object store: verified, bounded, shared by processes.

    <cache>/artifacts/<digest of the file list>/<path>     one entry per set of files
    <cache>/artifacts/.locks/<the same digest>             whoever reads holds it shared

An entry is evicted, least recently used first, only by a process that gets its lock exclusively, so
never while a stage reads it. Files appear in an entry whole and verified (tmp + rename). The limit
(FOUNDRY_CACHE_GB, 50 by default) is exceeded only by what is in use at one time.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from foundry_core.errors import FoundryError
from foundry_core.home import cache_dir
from foundry_core.store.manifest import File, sha256_of
from foundry_core.store.verified import Seals

# Writes a file's bytes to a new path; returns the sha256 of what it wrote.
Download = Callable[[File, Path], str]
THREADS = 8
_DEFAULT_GB = 50.0


class CorruptFile(FoundryError):
    """A stored file has other bytes than were committed."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(problem, "run again: what is corrupt is rebuilt where it is needed")
        self.path = path


@dataclass(frozen=True)
class _Entry:
    name: str
    size: int
    used: float


class FileCache:
    def __init__(self, root: Path | None = None, limit: int | None = None) -> None:
        self.root = root or cache_dir() / "artifacts"
        self.limit = cache_limit() if limit is None else limit
        self._locks = self.root / ".locks"
        self._seals = Seals()

    @contextlib.contextmanager
    def reading(self, files: Sequence[File], download: Download) -> Iterator[Path]:
        """A folder with these files, fetched as far as they are absent; not evicted meanwhile.

        Raises CorruptFile when the bytes received are not those that were committed.
        """
        name = entry_name(files)
        with self._shared(name) as lock:
            folder = self.root / name
            if not folder.is_dir() or self._seals.check(folder, files):
                self._fetch(name, files, download)
            os.utime(lock.name)
            yield folder

    def put(self, files: Sequence[File], folder: Path) -> None:
        """Moves a folder with exactly these files in, sparing whoever reads them next on this host
        a download. The folder is gone afterwards."""
        name = entry_name(files)
        with self._shared(name):
            try:
                os.rename(folder, self.root / name)
                self._seals.seal(self.root / name, files)
            except OSError as error:
                # Another process was first, or the cache lies on another file system.
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.EXDEV):
                    raise
                shutil.rmtree(folder, ignore_errors=True)
        self.make_room(0)

    def make_room(self, needed: int) -> None:
        """Evicts what nobody reads until `needed` bytes more fit."""
        entries = sorted(self._entries(), key=lambda entry: entry.used)
        total = sum(entry.size for entry in entries) + needed
        for entry in entries:
            if total <= self.limit:
                return
            if self._evict(entry.name):
                total -= entry.size

    def _fetch(self, name: str, files: Sequence[File], download: Download) -> None:
        folder = self.root / name
        # One process downloads; the others find the files there when it is done.
        with self._lock_file(f"{name}.fetch") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            folder.mkdir(exist_ok=True)
            missing = [file for file in files if not _whole(folder / file.path, file)]
            self.make_room(sum(file.size for file in missing))
            try:
                with ThreadPoolExecutor(THREADS) as pool:
                    list(pool.map(lambda file: _place(folder, file, download), missing))
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                raise FoundryError(
                    f"no space left for {name[:12]} in the cache {self.root}",
                    "free space, lower FOUNDRY_CACHE_GB or move FOUNDRY_HOME to a larger disk",
                ) from None
            self._seals.seal(folder, files)
            Path(lock.name).unlink(missing_ok=True)

    def _entries(self) -> list[_Entry]:
        found = []
        for folder in self.root.glob("[0-9a-f]*"):
            with contextlib.suppress(FileNotFoundError):
                size = sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
                lock = self._locks / folder.name
                used = lock.stat().st_mtime if lock.exists() else 0.0
                found.append(_Entry(folder.name, size, used))
        return found

    def _evict(self, name: str) -> bool:
        trash = self.root / f".trash-{os.urandom(4).hex()}"
        with self._lock_file(name) as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not _same_file(lock):
                    return False
                os.rename(self.root / name, trash)
            except (BlockingIOError, FileNotFoundError):
                return False
            self._seals.forget(self.root / name)
            Path(lock.name).unlink(missing_ok=True)
        shutil.rmtree(trash, ignore_errors=True)
        return True

    @contextlib.contextmanager
    def _shared(self, name: str) -> Iterator[IO[bytes]]:
        while True:
            with self._lock_file(name) as lock:
                fcntl.flock(lock, fcntl.LOCK_SH)
                # An evictor may have removed the name between open and flock.
                if _same_file(lock):
                    yield lock
                    return

    def _lock_file(self, name: str) -> IO[bytes]:
        self._locks.mkdir(parents=True, exist_ok=True)
        return (self._locks / name).open("ab")


def entry_name(files: Sequence[File]) -> str:
    digest = hashlib.sha256()
    for file in sorted(files, key=lambda f: f.path):
        digest.update(f"{file.path}\0{file.size}\0{file.sha256}\n".encode())
    return digest.hexdigest()


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


def _place(folder: Path, file: File, download: Download) -> None:
    path = folder / file.path
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    try:
        received = download(file, temporary)
        if received != file.sha256:
            raise CorruptFile(
                file.path,
                f"{file.path}: the store has a file with sha256 {received[:12]}, "
                f"{file.sha256[:12]} was committed",
            )
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _whole(path: Path, file: File) -> bool:
    try:
        return path.stat().st_size == file.size and sha256_of(path) == file.sha256
    except FileNotFoundError:
        return False


def _same_file(lock: IO[bytes]) -> bool:
    """Whether the lock's name still is this file."""
    try:
        return os.stat(lock.name).st_ino == os.fstat(lock.fileno()).st_ino
    except FileNotFoundError:
        return False
