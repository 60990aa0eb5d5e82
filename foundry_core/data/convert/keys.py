"""Which piece of a source a sample's key was first met in, however many samples there are.

They lie in a file of the conversion's temporary folder, about 25 bytes each; memory is that of
SQLite's cache of pages.
"""

import hashlib
import sqlite3
from pathlib import Path
from types import TracebackType
from typing import Self

_CACHE_KIB = 16 << 10


class FirstPieces:
    """The keys met so far. By 16 bytes of their digest: two keys never share those."""

    def __init__(self, folder: Path) -> None:
        self._file = sqlite3.connect(folder / "keys.sqlite", isolation_level=None)
        # Nobody reads the file after a crash.
        for setting in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{_CACHE_KIB}"):
            self._file.execute(f"PRAGMA {setting}")
        self._file.execute(
            "CREATE TABLE keys (digest BLOB PRIMARY KEY, piece INTEGER) WITHOUT ROWID"
        )
        self._file.execute("BEGIN")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        self._file.close()

    def earlier(self, key: str, piece: int) -> int | None:
        """The number of the piece that has the key already; None notes that `piece` has it."""
        digest = hashlib.sha256(key.encode()).digest()[:16]
        noted = self._file.execute("INSERT OR IGNORE INTO keys VALUES (?, ?)", (digest, piece))
        if noted.rowcount:
            return None
        (found,) = self._file.execute("SELECT piece FROM keys WHERE digest = ?", (digest,))
        return int(found[0])
