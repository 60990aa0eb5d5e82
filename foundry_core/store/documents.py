"""Small named documents of a store: runs, code fingerprints, aliases, pins, the content index.

A local folder here; on S3 `foundry_core.objects.Objects` has the same calls.
"""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from foundry_core.errors import FoundryError
from foundry_core.store.manifest import fsync_folder, write_durably

# File systems end at 255 bytes; a file being written has some 30 more in its name.
LONGEST_NAME = 220


class Documents(Protocol):
    """Bytes by relative posix name. Each is whole or absent, whatever crashes."""

    def read(self, name: str) -> bytes:
        """Raises FileNotFoundError."""

    def create(self, name: str, data: bytes) -> bool:
        """False when the name is taken by other bytes."""

    def write(self, name: str, data: bytes) -> None:
        """Replaces what was there."""

    def delete(self, names: Iterable[str]) -> None:
        """Deleting what is gone is no error."""

    def names(self, folder: str = "") -> list[str]:
        """Sorted names directly below; [] when there is no such folder."""


def is_name(text: str) -> bool:
    """Whether a text that somebody typed names one document of a folder, and nothing elsewhere."""
    short = len(text.encode(errors="surrogatepass")) <= LONGEST_NAME
    return short and not text.startswith(".") and not {"/", "\0"} & set(text) and text != ""


class LocalDocuments:
    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, name: str) -> bytes:
        return self._path(name).read_bytes()

    def create(self, name: str, data: bytes) -> bool:
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
        try:
            write_durably(temporary, data)
            # link() refuses a taken name, which rename() would silently replace.
            os.link(temporary, path)
        except FileExistsError:
            return path.read_bytes() == data
        finally:
            temporary.unlink(missing_ok=True)
        fsync_folder(path.parent)
        return True

    def write(self, name: str, data: bytes) -> None:
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, data)

    def delete(self, names: Iterable[str]) -> None:
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                self._path(name).unlink()

    def names(self, folder: str = "") -> list[str]:
        try:
            found = os.listdir(self._path(folder))
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(name for name in found if not name.startswith("."))

    def _path(self, name: str) -> Path:
        if name.startswith("/") or ".." in name.split("/"):
            raise FoundryError(
                f"{name!r} is no document of {self._root}", "give a name without '..'"
            )
        return self._root / name
