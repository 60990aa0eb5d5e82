"""Where a Foundry user's state lies: $FOUNDRY_HOME, or the nearest `.foundry` from the current
folder upwards, or a new one in the project's folder, or in the current one.
"""

import contextlib
import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from foundry_core.files import read_cache, write_atomic
from foundry_core.project import project_folder

NAME = ".foundry"


def home_dir() -> Path:
    """Nothing is made there by asking. A folder above counts only if it is ours: what somebody
    else left in a shared place is not read."""
    named = os.environ.get("FOUNDRY_HOME")
    if named:
        return Path(os.path.expanduser(named)).absolute()
    here = Path.cwd()
    if (here / NAME).is_dir():
        return here / NAME
    above = next(filter(_is_ours, (folder / NAME for folder in here.parents)), None)
    return above or (project_folder() or here) / NAME


def _is_ours(folder: Path) -> bool:
    """A link counts as its owner's, wherever it leads."""
    try:
        owners = {os.lstat(folder).st_uid, os.stat(folder).st_uid}
    except OSError:
        return False
    return folder.is_dir() and owners == {os.geteuid()}


def cache_dir() -> Path:
    """Derived data only: deleting it costs time, never results."""
    return home_dir() / "cache"


def cached(name: str) -> dict[str, Any]:
    """What `keep` kept last, by whatever process; {} when nothing. Not to be changed: it is shared,
    for parsing takes milliseconds and a plan asks several times."""
    path = cache_dir() / name
    try:
        stat = os.stat(path)
    except OSError:
        return {}
    return _parsed(path, stat.st_mtime_ns, stat.st_ino)


@lru_cache(maxsize=4)
def _parsed(path: Path, _mtime: int, _inode: int) -> dict[str, Any]:
    return read_cache(path) or {}


def write_cache(path: Path, data: bytes | str) -> None:
    """Writes a file below `cache_dir`, which can be computed again: a full or read-only disk does
    without, and so does who has no home yet, for a plan or a question makes none."""
    if home_dir().is_dir():
        with contextlib.suppress(OSError):
            write_atomic(path, data, durable=False)


def keep(name: str, value: dict[str, Any]) -> None:
    """Remembers a JSON object for later processes. Whoever changes its form changes its name."""
    write_cache(cache_dir() / name, json.dumps(value))


def store_uri() -> str:
    """$FOUNDRY_STORE (a path or s3://bucket/prefix), by default <home>/store."""
    return os.environ.get("FOUNDRY_STORE") or str(home_dir() / "store")
