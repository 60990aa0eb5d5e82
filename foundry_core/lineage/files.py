"""Where event files lie: a folder, or a prefix of an object store through fsspec.

Both create a name once and whole or not at all; neither ever overwrites. That is all the event log
needs to be safe with any number of writers and no lock.
"""

import contextlib
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
    """Files below a path or an fsspec URL such as s3://bucket/prefix."""
    if "://" not in uri:
        return LocalFiles(uri)
    import fsspec

    fs, root = fsspec.core.url_to_fs(uri)
    return RemoteFiles(fs, root)


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
        except FileNotFoundError:
            return []
        return sorted(name for name in found if not name.startswith("."))

    def delete(self, name: str) -> None:
        (self._path / name).unlink(missing_ok=True)

    def local(self, name: str) -> str | None:
        return str(self._path / name)


class RemoteFiles:
    """Create-only puts: `mode="create"` becomes If-None-Match on S3."""

    def __init__(self, fs: Any, root: str) -> None:
        self.root = root.rstrip("/")
        self._fs = fs

    def create(self, name: str, data: bytes) -> bool:
        try:
            self._fs.pipe_file(f"{self.root}/{name}", data, mode="create")
        except FileExistsError:
            return False
        return True

    def read(self, name: str) -> bytes:
        return self._fs.cat_file(f"{self.root}/{name}")

    def names(self, folder: str) -> list[str]:
        path = f"{self.root}/{folder}".rstrip("/")
        try:
            found = self._fs.ls(path, detail=False, refresh=True)
        except FileNotFoundError:
            return []
        return sorted(base for p in found if (base := p.rstrip("/").rpartition("/")[2]))

    def delete(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(f"{self.root}/{name}")

    def local(self, name: str) -> str | None:
        return None


def _fsync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
