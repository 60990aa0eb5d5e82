"""Which files had which stat signature when their digests were verified, so that checking an
artifact again costs a stat per file. A cache in the user's home: losing it costs a size check
instead of a digest check until the next `verify`.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from foundry_core.files import (
    Signature,
    json_line,
    read_cache,
    sha256_hex,
    sha256_of,
    signature,
)
from foundry_core.home import cache_dir, write_cache
from foundry_core.store.manifest import MANIFEST, File

# No file has this signature: one that is known by it is read at every check.
_DAMAGED: Signature = (-1, -1, -1, -1)


class VerifiedDigests:
    """The signatures of the verified files of any number of folders."""

    def record(self, folder: Path, files: Sequence[File]) -> None:
        """Takes the present signatures; call only right after the digests were computed."""
        self._write(folder, {f.path: signature(os.stat(folder / f.path)) for f in files})

    def forget(self, folder: Path) -> None:
        """For folders that are deleted."""
        self._cache_file(folder).unlink(missing_ok=True)

    def check(
        self,
        folder: Path,
        files: Sequence[File],
        *,
        read_all: bool = False,
        links_out: bool = False,
    ) -> str:
        """'' when the files are whole, else what is wrong with the first bad one. links_out: they
        may be links to files elsewhere, as in a folder that somebody imported.

        Sizes always count; a file whose signature moved since it was recorded is re-read, as is one
        without a signature that was written after artifact.json, which a commit writes last.
        """
        verified = self._read(folder)
        place = str(folder)  # of thousands of files: joining Paths would cost more than their stats
        committed_ns = _modified(folder / MANIFEST)
        moved: dict[str, Signature] = {}
        for file in files:
            try:
                stat = os.stat(f"{place}/{file.path}")
            except (FileNotFoundError, NotADirectoryError):
                return f"{file.path} is missing"
            if stat.st_size != file.size:
                return f"{file.path} has {stat.st_size} bytes, {file.size} were committed"
            now, known = signature(stat), verified.get(file.path)
            if known == now and not read_all:
                continue
            if not links_out and not _inside(place, file.path):
                return f"{file.path} is a link out of the artifact"
            if known is None and stat.st_mtime_ns <= committed_ns and not read_all:
                continue
            if not (folder / file.path).is_file():
                return f"{file.path} is no file any more"
            if sha256_of(folder / file.path) != file.sha256:
                self._write(folder, verified | moved | {file.path: _DAMAGED})
                return f"{file.path} has another digest than was committed"
            moved[file.path] = now
        if moved:
            self._write(folder, verified | moved)
        return ""

    def _cache_file(self, folder: Path) -> Path:
        return cache_dir() / "verified" / f"{sha256_hex(str(folder.absolute()))[:32]}.json"

    def _read(self, folder: Path) -> dict[str, Signature]:
        known = read_cache(self._cache_file(folder)) or {}
        return {path: (row[0], row[1], row[2], row[3]) for path, row in known.items()}

    def _write(self, folder: Path, signatures: dict[str, Signature]) -> None:
        write_cache(self._cache_file(folder), json_line(signatures))


def _inside(folder: str, name: str) -> bool:
    real = os.path.realpath(folder)
    return os.path.realpath(f"{folder}/{name}").startswith(f"{real}/")


def _modified(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
