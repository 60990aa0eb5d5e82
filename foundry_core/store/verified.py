"""Seals: the stat signatures of files whose digests were verified, so that checking an artifact
again costs a stat per file. A seal is a cache in the user's home: losing it costs a size check
instead of a digest check until the next `verify`.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from foundry_core.home import cache_dir, write_cache
from foundry_core.store.manifest import MANIFEST, File

Signature = list[int]


class Seals:
    def seal(self, folder: Path, files: Sequence[File]) -> None:
        """Records the present signatures; call only right after the digests were computed."""
        self._write(folder, {f.path: _signature(folder / f.path) for f in files})

    def forget(self, folder: Path) -> None:
        self._seal_file(folder).unlink(missing_ok=True)

    def check(self, folder: Path, files: Sequence[File], *, read_all: bool = False) -> str:
        """'' when the files are whole, else what is wrong with the first bad one.

        Sizes always count; a file whose signature moved since it was sealed is re-read, as is one
        without a seal that was written after artifact.json, which a commit writes last.
        """
        sealed = self._read(folder)
        place = str(folder)  # of thousands of files: joining Paths would cost more than their stats
        committed_ns = _modified(folder / MANIFEST)
        moved: dict[str, Signature] = {}
        for file in files:
            try:
                signature = _signature(f"{place}/{file.path}")
            except (FileNotFoundError, NotADirectoryError):
                return f"{file.path} is missing"
            if signature[0] != file.size:
                return f"{file.path} has {signature[0]} bytes, {file.size} were committed"
            known = sealed.get(file.path)
            if known == signature and not read_all:
                continue
            if known is None and signature[1] <= committed_ns and not read_all:
                continue
            if not (folder / file.path).is_file():
                return f"{file.path} is no file any more"
            if _sha256(folder / file.path) != file.sha256:
                # No signature equals this one: from now on the file is read at every check.
                self._write(folder, sealed | moved | {file.path: []})
                return f"{file.path} has another digest than was committed"
            moved[file.path] = signature
        if moved:
            self._write(folder, sealed | moved)
        return ""

    def _seal_file(self, folder: Path) -> Path:
        name = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:32]
        return cache_dir() / "seals" / f"{name}.json"

    def _read(self, folder: Path) -> dict[str, Signature]:
        try:
            return json.loads(self._seal_file(folder).read_text())
        except (OSError, ValueError):
            return {}

    def _write(self, folder: Path, signatures: dict[str, Signature]) -> None:
        write_cache(self._seal_file(folder), json.dumps(signatures))


def _signature(path: str | Path) -> Signature:
    """ctime is in it because a tool that restores mtime cannot set it back."""
    stat = os.stat(path)
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino, stat.st_ctime_ns]


def _modified(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
