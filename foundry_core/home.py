"""Where a Foundry user's state lies: $FOUNDRY_HOME, by default ./.foundry."""

import contextlib
import os
import time
from pathlib import Path

# The coarsest clock of a file system in use (FAT).
_FRESH_SECONDS = 2.0


def home_dir() -> Path:
    return Path(os.environ.get("FOUNDRY_HOME", ".foundry")).expanduser().absolute()


def cache_dir() -> Path:
    """Derived data only: deleting it costs time, never results."""
    return home_dir() / "cache"


def store_uri() -> str:
    """$FOUNDRY_STORE (a path or s3://bucket/prefix), by default <home>/store."""
    return os.environ.get("FOUNDRY_STORE") or str(home_dir() / "store")


def write_cache(path: Path, text: str) -> None:
    """Writes a file below cache_dir(), whole or not at all. A full or read-only home does without:
    what is cached can be computed again."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(3).hex()}")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(text)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def settled(stat: os.stat_result) -> bool:
    """Whether a cache may know a file's content by this stat: one edited a moment ago could be
    edited again without it moving."""
    return time.time() - stat.st_ctime > _FRESH_SECONDS
