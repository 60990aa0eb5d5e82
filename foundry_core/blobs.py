"""Bytes by name under one root: a folder, or a prefix of an object store.

The small files of a store and the event log are kept so. Each is whole or absent, whatever crashes,
and of any number of writers that create one name, one wins: all that either needs to be safe
without locks. On S3 it is `foundry_core.objects.Objects` that has these calls.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from foundry_core import files
from foundry_core.errors import FoundryError

# File systems end at 255 bytes; a file being written has some 30 more in its name.
LONGEST_NAME = 220


class Blobs(Protocol):
    """Names are relative posix paths."""

    @property
    def uri(self) -> str:
        """Where they lie: an absolute path, or s3://bucket/prefix."""

    def create(self, name: str, data: bytes) -> bool:
        """Whether the name has these bytes now: False when it is taken by others."""

    def create_all(self, blobs: Sequence[tuple[str, bytes]]) -> list[bool]:
        """`create` of each, in order: after a crash a first part of them is there."""

    def write(self, name: str, data: bytes) -> None:
        """Replaces what was there."""

    def read(self, name: str, most: int | None = None) -> bytes:
        """Raises FileNotFoundError, and ValueError for more than `most` bytes."""

    def delete(self, *names: str) -> None:
        """Deleting what is gone is no error."""

    def names(self, folder: str = "") -> list[str]:
        """Sorted names of the files and folders directly below; [] when there is no such folder."""

    def local(self, name: str) -> Path | None:
        """The path where readers of local files find it, or None."""


def open_blobs(uri: str) -> Blobs:
    """Those below a path or s3://bucket/prefix."""
    if "://" not in uri:
        return FolderBlobs(uri)
    from foundry_core.objects import connect

    return connect(uri)


def is_name(text: str) -> bool:
    """Whether a text that somebody typed names one blob of a folder, and nothing elsewhere."""
    short = len(text.encode(errors="surrogatepass")) <= LONGEST_NAME
    return short and not text.startswith(".") and not {"/", "\0"} & set(text) and text != ""


class FolderBlobs:
    """Files below a folder. Raises FoundryError for names that lead out of it."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self._root = Path(root).absolute()

    @property
    def uri(self) -> str:
        return str(self._root)

    def create(self, name: str, data: bytes) -> bool:
        path = self.local(name)
        return files.create(path, data) or _holds(path, data)

    def create_all(self, blobs: Sequence[tuple[str, bytes]]) -> list[bool]:
        placed = [(self.local(name), data) for name, data in blobs]
        created = files.create_all(placed)
        return [
            new or _holds(path, data) for new, (path, data) in zip(created, placed, strict=True)
        ]

    def write(self, name: str, data: bytes) -> None:
        files.write_atomic(self.local(name), data)

    def read(self, name: str, most: int | None = None) -> bytes:
        with self.local(name).open("rb") as stream:
            data = stream.read() if most is None else stream.read(most + 1)
        if most is not None and len(data) > most:
            raise ValueError(f"{name} has more than the {most} bytes that are read")
        return data

    def delete(self, *names: str) -> None:
        for name in names:
            self.local(name).unlink(missing_ok=True)

    def names(self, folder: str = "") -> list[str]:
        return files.names_in(self.local(folder))

    def local(self, name: str) -> Path:
        if name.startswith("/") or ".." in name.split("/"):
            raise FoundryError(f"{name!r} is no name below {self._root}", "give one without '..'")
        return self._root / name


def _holds(path: Path, data: bytes) -> bool:
    try:
        return path.read_bytes() == data
    except FileNotFoundError:  # deleted meanwhile
        return False
