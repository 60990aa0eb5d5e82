"""The lineage index as pages ask it: brought up to date when the log has gained something."""

import contextlib
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import duckdb

from foundry_core.errors import FoundryError
from foundry_core.home import home_dir, store_uri
from foundry_core.lineage import queries
from foundry_core.lineage.events import EventLog
from foundry_core.lineage.index import Index
from foundry_core.store.base import Store
from foundry_core.store.open import open_store

T = TypeVar("T")
_EVERY_SECONDS = 1.0
# Of the time at most: a large index takes long to copy. But nobody waits longer than this for it.
_SHARE, _MOST_SECONDS = 0.25, 20.0
_MEMORY = "1GB"


class LiveLineage:
    """Thread-safe; one question at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._log: EventLog | None = None
        self._names: list[str] = []
        self._next = 0.0
        self._version = 0

    def version(self) -> int:
        """Moves when an answer may be another one. Looks at the log at most once in a second."""
        with self._lock:
            self._look()
            return self._version

    def ask(self, question: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        """What a question finds. FoundryError where nothing was indexed yet."""
        with self._lock:
            self._look()
            if self._connection is None:
                raise FoundryError("nothing has run here yet", "foundry run demo-fast")
            return question(self._connection)

    def _look(self) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + _EVERY_SECONDS
        if self._log is None:
            self._log = EventLog(opened().events_uri)
        names = [*self._log.segments(), *self._log.loose()]
        if names == self._names and self._connection is not None:
            return
        self._advance(self._log)
        self._names = names
        took = time.monotonic() - now
        self._next = time.monotonic() + min(max(_EVERY_SECONDS, took / _SHARE), _MOST_SECONDS)

    def _advance(self, log: EventLog) -> None:
        """Where nothing can be written, the index is shown as it is."""
        path = home_dir() / queries.INDEX_NAME
        if not home_dir().is_dir():
            return
        with contextlib.suppress(OSError, duckdb.IOException):
            Index(path, log).advance()
        if not path.exists():
            return
        fresh = queries.connect()
        fresh.execute(f"set memory_limit = '{_MEMORY}'; set threads = 2")
        if self._connection is not None:
            self._connection.close()
        self._connection = fresh
        self._version += 1


def opened() -> Store:
    """The home's store. What an object of it fetched goes with the object."""
    return open_store(store_uri())
