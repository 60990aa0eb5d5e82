"""Where a Foundry user's state lies: $FOUNDRY_HOME, by default ./.foundry."""

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from foundry_core.files import read_cache, write_cache


def home_dir() -> Path:
    return Path(os.environ.get("FOUNDRY_HOME", ".foundry")).expanduser().absolute()


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


def keep(name: str, value: dict[str, Any]) -> None:
    """Remembers a JSON object for later processes. Whoever changes its form changes its name."""
    write_cache(cache_dir() / name, json.dumps(value))


def store_uri() -> str:
    """$FOUNDRY_STORE (a path or s3://bucket/prefix), by default <home>/store."""
    return os.environ.get("FOUNDRY_STORE") or str(home_dir() / "store")
