"""Small named documents of a store: runs, code closures, aliases, pins, the content index.

A local folder here; on S3 `foundry_core.objects.Objects` has the same calls.
"""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from foundry_core.store.artifact import fsync_folder, write_durably


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


class LocalDocuments:
    def __init__(self, root: Path) -> None:
        self._root = root

    def read(self, name: str) -> bytes:
        return (self._root / name).read_bytes()

    def create(self, name: str, data: bytes) -> bool:
        path = self._root / name
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
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_durably(path, data)

    def delete(self, names: Iterable[str]) -> None:
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                (self._root / name).unlink()

    def names(self, folder: str = "") -> list[str]:
        try:
            found = os.listdir(self._root / folder)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(name for name in found if not name.startswith("."))
