"""Shards that this process has open, few whatever their number: a limit of the system counts them.

They are read with pread: unlike a map, a file that is cut while it is read gives an error and not a
SIGBUS, forked workers share a descriptor without moving each other's place, and what was read
counts as memory only as long as somebody holds it.
"""

import errno
import fcntl
import os
import resource
import struct
from collections import OrderedDict
from collections.abc import Callable

from foundry_core.errors import FoundryError
from foundry_core.files import signature

_HOW = os.O_RDONLY | os.O_CLOEXEC
_pread = os.pread
_MOST, _LEAST = 16_384, 8
_STATE = struct.Struct("<QqqQ")
# So many files that were read since are passed over to close one that was not.
_SPARED = 4
# Below lie the descriptors that select() can watch.
_ABOVE = 1024


class OpenFile:
    """A descriptor, closed with the last reference: nobody else's read finds it closed, or given to
    another file. above: the least number that it may have. state: as it was when it was opened.
    used: whether it was read since it was last in line to be closed.
    """

    __slots__ = ("descriptor", "state", "used")

    def __init__(self, path: str, above: int = 0) -> None:
        self.descriptor = -1
        self.used = False
        self.descriptor = os.open(path, _HOW)
        if self.descriptor < above:
            low = self.descriptor
            self.descriptor = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, above)
            os.close(low)
        self.state = file_state(os.fstat(self.descriptor))

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        if self.descriptor >= 0:
            close(self.descriptor)

    @property
    def size(self) -> int:
        """When it was opened."""
        return int.from_bytes(self.state[:8], "little")

    def now(self) -> bytes:
        """The state of the file by now; unlinking changes it."""
        return file_state(os.fstat(self.descriptor))

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes at `offset`, fewer where the file ends."""
        data = _pread(self.descriptor, size, offset)
        while len(data) < size:
            more = os.pread(self.descriptor, size - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data


def file_state(stat: os.stat_result) -> bytes:
    """A signature as bytes: one object where thousands of files are open, not five."""
    return _STATE.pack(*signature(stat))


class OpenFiles:
    """Files that were read lately, by path. limit: how many; None takes three quarters of what the
    system still lets this process open when the first is: not by the limit that it was started
    with, which is often 1,024, but by the one to which it may raise that.

    The one that waits longest goes first, unless it was read since: then it waits once more. So a
    read of an open file moves nothing (as the order of last use would), and hot ones stay.
    """

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        self._above = 0
        self._files: OrderedDict[str, OpenFile] = OrderedDict()  # the next to close is the first

    def __len__(self) -> int:
        return len(self._files)

    @property
    def limit(self) -> int:
        """How many stay open."""
        if self._limit is None:
            now = _open_now()
            allowed = _raised(2 * _MOST + now)
            # Whatever else the process opens keeps the low numbers.
            self._above = _ABOVE if allowed >= 4 * _ABOVE else 0
            self._limit = min(_MOST, max(_LEAST, (allowed - self._above - now) * 3 // 4))
        return self._limit

    def get(self, path: str) -> OpenFile | None:
        """The file, if it is open."""
        file = self._files.get(path)
        if file is not None:
            file.used = True
        return file

    def open(self, path: str) -> OpenFile:
        """Opened anew, and kept. OSError where it cannot be."""
        kept = self.limit if self._limit is None else self._limit
        try:
            file = OpenFile(path, self._above)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            file = self._reopened(path)
            kept = min(kept, self.limit)
        self._files[path] = file
        if len(self._files) > kept:
            self._close_one()
        return file

    def drop(self, path: str) -> None:
        """Lets go of a file."""
        self._files.pop(path, None)

    def drop_deleted(self) -> None:
        """A deleted file keeps its disk space as long as it is open."""
        for path, file in list(self._files.items()):
            if os.fstat(file.descriptor).st_nlink == 0:
                self.drop(path)

    def _close_one(self) -> None:
        """The first in line, or the first of the next few that was not read while it waited."""
        files = self._files
        for spared in range(_SPARED + 1):
            try:
                path, file = files.popitem(last=False)
            except KeyError:  # another thread closed them
                return
            if spared == _SPARED or not file.used:
                return
            file.used = False
            files[path] = file

    def _reopened(self, path: str) -> OpenFile:
        """What else the process opened left less than was thought."""
        self._limit = max(1, len(self._files) // 2)
        while len(self._files) >= self._limit and self._files:
            self._close_one()
        try:
            return OpenFile(path, self._above)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            raise FoundryError(
                f"shard {path!r} cannot be opened: this process has as many files open as it may",
                "raise the limit (ulimit -n)",
            ) from error


def _raised(wanted: int) -> int:
    """How many files this process may open, once it asked for so many."""
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if allowed == resource.RLIM_INFINITY or allowed >= wanted:
        return wanted
    more = wanted if most == resource.RLIM_INFINITY else min(wanted, most)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (more, most))
    except (OSError, ValueError):  # some systems have a lower limit of their own
        return allowed
    return more


def _open_now() -> int:
    """Descriptors that this process has open."""
    try:
        return len(os.listdir("/dev/fd"))
    except OSError:
        return 0


OPEN_FILES = OpenFiles()
