"""The password of this home's server: made once, read by every process of the same user."""

import os
import secrets
from pathlib import Path

from foundry_core.errors import FoundryError
from foundry_core.files import create
from foundry_core.home import home_dir

# What a server asks for, and what a client shows it: `user:password`, as Prefect reads them.
SERVER, CLIENT = "PREFECT_SERVER_API_AUTH_STRING", "PREFECT_API_AUTH_STRING"


def path() -> Path:
    return home_dir() / "serve" / "password"


def new() -> str:
    return f"foundry:{secrets.token_urlsafe(24)}"


def known() -> str | None:
    """What `foundry serve` of this home asks for; None before its first start."""
    try:
        return path().read_text().strip()
    except OSError:
        return None


def make() -> str:
    """The server's password: PREFECT_SERVER_API_AUTH_STRING where it is set, empty for none; else
    the home's own, made now if there is none. FoundryError when other users can read that."""
    if (chosen := os.environ.get(SERVER)) is not None:
        return chosen
    create(path(), new(), mode=0o600)
    if path().stat().st_mode & 0o077:
        raise FoundryError(
            f"{path()}: other users of this machine may read the server's password",
            "delete it, and a new one is made",
        )
    return path().read_text().strip()
