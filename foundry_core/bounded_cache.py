"""A folder of bounded size that any number of local processes share.

    <root>/<name>               an entry: a file, or a folder with all that lies in it
    <root>/.locks/<name>        held shared by whoever uses the entry; its time is the last use
    <root>/.locks/<name>.fill   held by whoever brings the entry's bytes in

When room is needed, the entry whose last use is the longest ago goes first. It goes only if its
lock can be had exclusively, so never while anybody uses it: the limit is exceeded by no more than
what is in use at one time. The kernel frees the locks of a process that dies.
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import IO

from foundry_core.files import extent, names_in


class BoundedCache:
    """limit: bytes. pattern: which names below `root` are entries. companions: files that belong to
    an entry, count with it and go before it. size: bytes that evicting a path would free."""

    def __init__(
        self,
        root: Path,
        limit: int,
        *,
        pattern: str = "*",
        companions: Callable[[Path], Sequence[Path]] = lambda entry: (),
        size: Callable[[Path], int] | None = None,
    ) -> None:
        self.root = root
        self.limit = limit
        self._pattern = pattern
        self._companions = companions
        self._size = size or _extent
        self._locks = root / ".locks"

    @contextlib.contextmanager
    def using(self, name: str) -> Iterator[Path]:
        """The entry's path, there or not; what is there is not evicted while the block runs."""
        with self._locked(name, fcntl.LOCK_SH) as lock:
            os.utime(lock.name)
            yield self.root / name

    @contextlib.contextmanager
    def filling(self, name: str) -> Iterator[None]:
        """One process at a time, inside `using`: the others wait, and find the bytes there."""
        with self._locked(f"{name}.fill", fcntl.LOCK_EX) as lock:
            yield
            os.unlink(lock.name)

    def make_room(self, needed: int = 0) -> list[str]:
        """Evicts until `needed` bytes more fit, or all that is left is in use; the names."""
        entries = sorted(self._entries())
        total = sum(size for _, _, size in entries) + needed
        evicted = []
        for _, name, size in entries:
            if total <= self.limit:
                break
            if size and self._evict(name):
                total -= size
                evicted.append(name)
        return evicted

    def _entries(self) -> Iterator[tuple[float, str, int]]:
        """(time of the last use, name, bytes)"""
        for name in names_in(self.root):
            if fnmatch(name, self._pattern):
                paths = self._paths(name)
                yield self._last_use(name), name, sum(map(self._size, paths))

    def _last_use(self, name: str) -> float:
        try:
            return (self._locks / name).stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def _paths(self, name: str) -> list[Path]:
        entry = self.root / name
        return [*self._companions(entry), entry]

    def _evict(self, name: str) -> bool:
        with self._open_lock(name) as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            if not _is_current(lock):
                return False
            for path in self._paths(name):
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)
            os.unlink(lock.name)
        return True

    @contextlib.contextmanager
    def _locked(self, name: str, how: int) -> Iterator[IO[bytes]]:
        while True:
            with self._open_lock(name) as lock:
                fcntl.flock(lock, how)
                # Between the two calls another may have deleted the file.
                if _is_current(lock):
                    yield lock
                    return

    def _open_lock(self, name: str) -> IO[bytes]:
        self._locks.mkdir(parents=True, exist_ok=True)
        return (self._locks / name).open("ab")


def _extent(path: Path) -> int:
    return extent(path)[0]


def _is_current(lock: IO[bytes]) -> bool:
    """Whether the lock's name still is this file."""
    try:
        return os.stat(lock.name).st_ino == os.fstat(lock.fileno()).st_ino
    except FileNotFoundError:
        return False
