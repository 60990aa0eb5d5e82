"""A disk that is full or may not be written to, said in words: which one, how full, what to do."""

import contextlib
import errno
import shutil
from collections.abc import Iterator
from pathlib import Path

from foundry_core.errors import FoundryError
from foundry_core.home import home_dir

_FULL = {errno.ENOSPC, errno.EDQUOT}
_REFUSED = {errno.EROFS: "read-only", errno.EACCES: "not writable", errno.EPERM: "not writable"}
_FULL_TEXT = "No space left on device"


def is_full(error: BaseException | None) -> bool:
    """Whether an error, or what it was raised from, says that a disk is full. Libraries wrap the
    operating system's error in their own, with its text."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        if _FULL_TEXT in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


def full_disk(path: str | Path) -> FoundryError:
    """The error that names the full disk of a path."""
    folder = _existing(Path(path))
    usage = shutil.disk_usage(folder)
    return FoundryError(
        f"the disk of {folder} is full: {usage.free / 1e6:.1f} of {usage.total / 1e6:.1f} MB free",
        "make room there, or set FOUNDRY_STORE or FOUNDRY_HOME to another disk; then run again: "
        "what is finished is reused, and training goes on from its last checkpoint",
    )


@contextlib.contextmanager
def naming_disk(place: Path) -> Iterator[None]:
    """Turns the operating system's refusals to write below `place` or into the home into
    FoundryErrors."""
    try:
        yield
    except OSError as error:
        where = Path(error.filename) if isinstance(error.filename, str) else None
        if error.errno in _FULL:
            # write() does not say where: the fuller disk it is
            fuller = min(
                place, home_dir(), key=lambda path: shutil.disk_usage(_existing(path)).free
            )
            raise full_disk(where or fuller) from error
        if error.errno in _REFUSED:
            raise FoundryError(
                f"{where or place} cannot be written: the place is {_REFUSED[error.errno]}",
                "planning needs no writing, a run does: check the mount and its permissions, or "
                "set FOUNDRY_STORE or FOUNDRY_HOME to another place",
            ) from error
        raise


def _existing(path: Path) -> Path:
    """The nearest folder that exists."""
    path = path.absolute()
    while not path.is_dir():
        path = path.parent
    return path
