"""The DuckDB index over the event log, and how it advances.

New events are projected in a private copy of the index that then replaces it, under a file lock. A
reader keeps the file that it opened: it never waits, never sees half a write, and DuckDB never has
two writers. The index holds nothing that the log does not, so deleting it costs a rebuild.
"""

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import duckdb

from foundry_core.files import sha256_hex
from foundry_core.lineage.connection import attach
from foundry_core.lineage.events import EventLog, event_id
from foundry_core.lineage.ingest import create_facts, create_incoming, ingest
from foundry_core.lineage.segments import compact, put_events, take_segments

SCHEMA_VERSION = 15
"""Of what Python projects; what the SQL files say counts by itself."""
# Files in the log: so many at most are loose after an advance, and so few after a compaction. The
# newest stay: single files are read fastest, and the next writer names the digest of one.
LOOSE_EVENTS = 128
KEPT_LOOSE = 16
# Looks at a log whose segments another process merges at the same time.
_LOOKS = 4


@dataclass(frozen=True, kw_only=True)
class Advance:
    """events: how many were new. unreadable: damaged event files, skipped until they are mended."""

    events: int
    seconds: float
    unreadable: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Pending:
    """What a log holds that an index lacks. events: the new loose ones. segments: names of new
    ones. unreadable: damaged event files."""

    events: Sequence[dict[str, Any]]
    segments: Sequence[str]
    unreadable: tuple[str, ...]


class Index:
    """The index file at `path` over `log`. Any number of processes may advance one index."""

    def __init__(self, path: str | Path, log: EventLog) -> None:
        self.path = Path(path).absolute()
        self.log = log

    def advance(self) -> Advance:
        """Takes in what the log has gained, and compacts the log. Rebuilds when there is no usable
        index of this log."""
        start = time.monotonic()
        with self._lock():
            with contextlib.suppress(OSError, duckdb.IOException):  # a log can be read as it is
                compact(self.log, least=LOOSE_EVENTS + 1 - KEPT_LOOSE, keep=KEPT_LOOSE)
            return self._again(lambda: self._advance(start))

    def _advance(self, start: float) -> Advance:
        pending = self._pending()
        if pending is None:
            return self._rebuild(start)
        count = self._extend(pending) if pending.events or pending.segments else 0
        return Advance(
            events=count, seconds=time.monotonic() - start, unreadable=pending.unreadable
        )

    def rebuild(self) -> Advance:
        """Recreates the index from the log alone; readers see the old one until it is whole."""
        start = time.monotonic()
        with self._lock():
            return self._again(lambda: self._rebuild(start))

    def _again(self, look: Callable[[], Advance]) -> Advance:
        """A segment that was listed may be gone when it is read: what it held is in another."""
        for _ in range(_LOOKS - 1):
            with contextlib.suppress(FileNotFoundError):
                return look()
            self._clear_draft()
        return look()

    def _pending(self) -> Pending | None:
        """What the log has gained; None when there is no usable index of this log."""
        if not self.path.exists():
            return None
        try:
            with contextlib.closing(attach(self.path)) as known:
                found = known.execute("select form, log from meta").fetchone()
                if found == (_form(), self.log.blobs.uri):
                    return find_pending(self.log, known)
        except duckdb.Error:
            pass
        return None

    def _extend(self, pending: Pending) -> int:
        shutil.copyfile(self.path, self._draft)
        with contextlib.closing(duckdb.connect(self._draft)) as connection:
            create_incoming(connection)
            count = self._take_in(connection, pending, fresh=False)
        os.replace(self._draft, self.path)
        return count

    def _rebuild(self, start: float) -> Advance:
        self._clear_draft()
        pending = find_pending(self.log, None)
        with contextlib.closing(duckdb.connect(self._draft)) as connection:
            connection.execute("set preserve_insertion_order = false")  # rows are a set
            create_incoming(connection)
            connection.execute(_sql("schema"))
            create_facts(connection)
            connection.execute(_sql("views"))
            connection.execute(_sql("macros"))
            meta = [_form(), self.log.blobs.uri]
            connection.execute("insert into meta values (?, ?)", meta)
            count = self._take_in(connection, pending, fresh=True)
        os.replace(self._draft, self.path)
        return Advance(
            events=count, seconds=time.monotonic() - start, unreadable=pending.unreadable
        )

    def _take_in(
        self, connection: duckdb.DuckDBPyConnection, pending: Pending, *, fresh: bool
    ) -> int:
        put_events(connection, pending.events)
        if pending.segments:
            take_segments(connection, self.log, pending.segments)
        if not fresh:
            connection.execute("begin")  # one write, in place of one per table
        count = ingest(connection, fresh=fresh)
        self._read_packages(connection)
        if not fresh:
            connection.execute("commit")
        return count

    def _read_packages(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Package lists of new attempts. One whose blob is lost stays unknown."""
        digests = connection.execute(
            """select distinct packages_digest from fact.attempt_started
            where packages_digest is not null
            and packages_digest not in (select digest from package) order by 1"""
        ).fetchall()
        for (digest,) in digests:
            try:
                packages = json.loads(self.log.blob(digest))
            except (FileNotFoundError, ValueError):
                continue
            connection.execute(
                "insert into package select $1, unnest($2::varchar[]), unnest($3::varchar[])",
                [digest, list(packages), list(packages.values())],
            )

    @property
    def _draft(self) -> Path:
        return self.path.with_name(f".{self.path.name}.draft")

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """One writer at a time; the kernel frees the lock of a process that died."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_name(f".{self.path.name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._clear_draft()
            yield

    def _clear_draft(self) -> None:
        """A writer that was killed leaves its draft behind."""
        self._draft.unlink(missing_ok=True)
        self._draft.with_name(f"{self._draft.name}.wal").unlink(missing_ok=True)


def find_pending(log: EventLog, index: duckdb.DuckDBPyConnection | None) -> Pending:
    """What is not in the index; everything where there is none.

    An event may be in both, or in two segments: the reader drops it by its id. None slips through:
    loose names are listed before segments, and an event is loose until its segment is durable.
    """
    loose = log.loose()
    segments = _new_segments(log, index)
    events: list[dict[str, Any]] = []
    unreadable: list[str] = []
    for name in _new_events(index, loose) if index else loose:
        try:
            events.append(log.read(name))
        except FileNotFoundError:  # compacted meanwhile
            segments = _new_segments(log, index)
        except (ValueError, OSError) as error:
            unreadable.append(f"{name}: {error}")
    return Pending(events=events, segments=segments, unreadable=tuple(unreadable))


def _new_segments(log: EventLog, index: duckdb.DuckDBPyConnection | None) -> list[str]:
    known = index.execute("select name from segment").fetchall() if index else []
    return sorted(set(log.segments()).difference(name for (name,) in known))


def _new_events(index: duckdb.DuckDBPyConnection, loose: Sequence[str]) -> list[str]:
    names = {event_id(name): name for name in loose}
    found = index.execute(
        """select id from (select unnest($1::varchar[]) as id)
        where id::uuid not in (
            select id from event
            semi join (select unnest($1::varchar[])::uuid as id) using (id))""",
        [list(names)],
    ).fetchall()
    return sorted(names[row[0]] for row in found)


@cache
def _form() -> str:
    """Of the index that this code makes; another one is rebuilt."""
    written = [_sql(name) for name in ("schema", "views", "macros")]
    return f"{SCHEMA_VERSION}-{sha256_hex(json.dumps(written).encode())[:16]}"


def _sql(name: str) -> str:
    return resources.files(__package__).joinpath(f"{name}.sql").read_text()
