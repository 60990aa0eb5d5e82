"""Where a Foundry user's state lies: $FOUNDRY_HOME, by default ./.foundry."""

import os
from pathlib import Path


def home_dir() -> Path:
    return Path(os.environ.get("FOUNDRY_HOME", ".foundry")).expanduser().absolute()


def cache_dir() -> Path:
    """Derived data only: deleting it costs time, never results."""
    return home_dir() / "cache"


def store_uri() -> str:
    """$FOUNDRY_STORE (a path or s3://bucket/prefix), by default <home>/store."""
    return os.environ.get("FOUNDRY_STORE") or str(home_dir() / "store")
