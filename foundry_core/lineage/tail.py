"""The tail: the few events that came after the index was last folded, as one small file.

Taking twenty events into a DuckDB file means copying, opening and checkpointing it: 0.1 s for an
empty one, 0.3 s for 100,000 artifacts. Appending them to a file that the index's views fold on the
fly is milliseconds. The file is replaced whole, so a reader finds the old one or the new one.

Line 1 is a header: what of the log the index and the tail hold, and which index file it belongs to.
"""

import contextlib
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foundry_core.lineage.events import compact_json

MAX_EVENTS = 400
MAX_BYTES = 256 * 1024
_CURRENT = "current"
_KEEP_SECONDS = 86_400


@dataclass(frozen=True, kw_only=True)
class Header:
    """index: inode and mtime of the index file. log: the root of its events. loose, segments: the
    names taken in. packages: digests of the package lists it looked for. events: lines below."""

    index: tuple[int, int]
    log: str
    loose: frozenset[str]
    segments: frozenset[str]
    packages: frozenset[str]
    events: int = 0

    def line(self) -> bytes:
        data = {
            "index": list(self.index),
            "log": self.log,
            "loose": sorted(self.loose),
            "segments": sorted(self.segments),
            "packages": sorted(self.packages),
            "events": self.events,
        }
        return f"{compact_json({'type': 'header', 'data': data})}\n".encode()

    @classmethod
    def parse(cls, line: bytes) -> "Header":
        data = json.loads(line)["data"]
        names = {name: frozenset(data[name]) for name in ("loose", "segments", "packages")}
        return cls(index=tuple(data["index"]), log=data["log"], events=data["events"], **names)


class Tails:
    """The tail files of one index: one per generation of the index file, named by a token."""

    def __init__(self, index: Path) -> None:
        self.folder = index.with_name(f".{index.name}.tail")

    def path(self, token: str) -> Path:
        return self.folder / f"{token}.jsonl"

    def current(self, index: Path) -> tuple[str, Header, bytes] | None:
        """(token, header, the lines below) of the tail of exactly this index file, or None."""
        try:
            token = (self.folder / _CURRENT).read_text()
            first, _, rest = self.path(token).read_bytes().partition(b"\n")
            header = Header.parse(first)
            return (token, header, rest) if header.index == signature(index) else None
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def begin(self, token: str, header: Header) -> None:
        """The empty tail of a new index file, before that file is published."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._replace(self.path(token), header.line())

    def make_current(self, token: str) -> None:
        """After the index file was published. Tails of yesterday's readers are removed."""
        self._replace(self.folder / _CURRENT, token.encode())
        limit = time.time() - _KEEP_SECONDS
        for path in self.folder.iterdir():
            if path not in (self.path(token), self.folder / _CURRENT):
                with contextlib.suppress(FileNotFoundError):
                    if path.stat().st_mtime < limit:
                        path.unlink()

    def write(self, token: str, header: Header, lines: bytes) -> None:
        self._replace(self.path(token), header.line() + lines)

    def _replace(self, path: Path, data: bytes) -> None:
        temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
        temporary.write_bytes(data)
        os.replace(temporary, path)


def signature(index: Path) -> tuple[int, int]:
    stat = index.stat()
    return (stat.st_ino, stat.st_mtime_ns)


def lines_of(events: Sequence[Mapping[str, Any]]) -> bytes:
    return b"".join(f"{compact_json(event)}\n".encode() for event in events)


def new_packages(events: Iterable[Mapping[str, Any]], known: frozenset[str]) -> bool:
    """Whether an attempt names a package list that the index has not looked for."""
    digests = ((event["data"].get("provenance") or {}).get("packages_digest") for event in events)
    return any(digest is not None and digest not in known for digest in digests)
