"""Where event files lie: a folder, or a prefix of an object store.

Both create a name once and whole or not at all; neither ever overwrites. That is all the event log
needs to be safe with any number of writers and no lock.
"""

import os
from pathlib import Path
from typing import Any, Protocol


class Files(Protocol):
    """Immutable files under a root, named by relative posix paths."""

    root: str

    def create(self, name: str, data: bytes) -> bool:
        """Durable and whole when it returns True; False when the name is taken."""

    def read(self, name: str) -> bytes:
        """Raises FileNotFoundError."""

    def names(self, folder: str) -> list[str]:
        """Sorted names of the files and folders directly below; [] when there is no such folder."""

    def delete(self, name: str) -> None:
        """Deleting what is gone is no error."""

    def local(self, name: str) -> str | None:
        """A path that a reader of local files can open, or None."""


def open_files(uri: str) -> Files:
    """Files below a path or s3://bucket/prefix."""
    if "://" not in uri:
        return LocalFiles(uri)
    from foundry_core.objects import connect

    return RemoteFiles(connect(uri))


class LocalFiles:
    def __init__(self, root: str | Path) -> None:
        self.root = str(Path(root).absolute())
        self._path = Path(self.root)

    def create(self, name: str, data: bytes) -> bool:
        path = self._path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
        try:
            with temporary.open("xb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            try:
                # link() refuses a taken name, which rename() would silently replace.
                os.link(temporary, path)
            except FileExistsError:
                return False
        finally:
            temporary.unlink(missing_ok=True)
        _fsync_folder(path.parent)
        return True

    def read(self, name: str) -> bytes:
        return (self._path / name).read_bytes()

    def names(self, folder: str) -> list[str]:
        try:
            found = os.listdir(self._path / folder)
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(name for name in found if not name.startswith("."))

    def delete(self, name: str) -> None:
        (self._path / name).unlink(missing_ok=True)

    def local(self, name: str) -> str | None:
        return str(self._path / name)


class RemoteFiles:
    """Create-only puts, with the retries of `foundry_core.objects`."""

    def __init__(self, objects: Any) -> None:
        self.root = objects.uri
        self._objects = objects

    def create(self, name: str, data: bytes) -> bool:
        return self._objects.create(name, data)

    def read(self, name: str) -> bytes:
        return self._objects.read(name)

    def names(self, folder: str) -> list[str]:
        return self._objects.names(folder)

    def delete(self, name: str) -> None:
        self._objects.delete([name])

    def local(self, name: str) -> str | None:
        return None


def _fsync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
