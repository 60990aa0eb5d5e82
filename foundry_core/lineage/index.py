"""The DuckDB index over the event log.

Advanced under a file lock in a private copy that is then renamed into place: an open reader keeps
the file it opened, sees neither half a write nor a lock, and DuckDB never has two writers. The
index holds nothing that the log does not, so deleting it costs a rebuild.
"""

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import duckdb

from foundry_core.lineage.events import EventLog, event_id
from foundry_core.lineage.ingest import ingest
from foundry_core.lineage.segments import EVENT_COLUMNS, put_events, quote, take_segments

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Advance:
    """events: how many were new. unreadable: damaged event files, skipped until they are mended."""

    events: int
    seconds: float
    unreadable: tuple[str, ...] = ()


class Index:
    def __init__(self, path: str | Path, log: EventLog) -> None:
        self.path = Path(path).absolute()
        self.log = log

    def advance(self) -> Advance:
        """Takes in what the log has gained. Rebuilds when there is no usable index of this log."""
        start = time.monotonic()
        with self._lock():
            if not self._usable():
                return self._rebuild(start)
            shutil.copyfile(self.path, self._draft)
            with self._open_draft() as connection:
                count, unreadable = self._take_in(connection, fresh=False)
            if count:
                os.replace(self._draft, self.path)
            self._draft.unlink(missing_ok=True)
        return Advance(events=count, seconds=time.monotonic() - start, unreadable=unreadable)

    def rebuild(self) -> Advance:
        """Recreates the index from the log alone; readers see the old one until it is whole."""
        start = time.monotonic()
        with self._lock():
            return self._rebuild(start)

    def _rebuild(self, start: float) -> Advance:
        with self._open_draft() as connection:
            for name in ("schema", "views", "macros"):
                connection.execute(_sql(name))
            connection.execute(
                "insert into meta values (?, ?)", [SCHEMA_VERSION, self.log.files.root]
            )
            count, unreadable = self._take_in(connection, fresh=True)
        os.replace(self._draft, self.path)
        return Advance(events=count, seconds=time.monotonic() - start, unreadable=unreadable)

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
        self._draft.unlink(missing_ok=True)
        self._draft.with_name(f"{self._draft.name}.wal").unlink(missing_ok=True)

    @contextlib.contextmanager
    def _open_draft(self) -> Iterator[duckdb.DuckDBPyConnection]:
        connection = duckdb.connect(self._draft)
        try:
            yield connection
        finally:
            connection.close()

    def _usable(self) -> bool:
        if not self.path.exists():
            return False
        try:
            with contextlib.closing(attach(self.path)) as connection:
                found = connection.execute("select schema_version, log from meta").fetchone()
        except duckdb.Error:
            return False
        return found == (SCHEMA_VERSION, self.log.files.root)

    def _take_in(
        self, connection: duckdb.DuckDBPyConnection, *, fresh: bool
    ) -> tuple[int, tuple[str, ...]]:
        connection.execute("begin")
        connection.execute(f"create temp table incoming ({EVENT_COLUMNS})")
        unreadable = self._collect(connection)
        count = _count(connection, "select count(*) from incoming")
        if count:
            ingest(connection, fresh=fresh)
            self._packages(connection)
        connection.execute("commit")
        return count, unreadable

    def _collect(self, connection: duckdb.DuckDBPyConnection) -> tuple[str, ...]:
        """Fills `incoming` with the events not yet known.

        Loose names are listed before segments: an event is loose until its segment is durable, so
        in this order none can slip through; one met twice is dropped by its id.
        """
        loose = self.log.loose()
        self._collect_segments(connection)
        rows: list[dict[str, Any]] = []
        unreadable: list[str] = []
        compacted = False
        for name in self._unknown(connection, loose):
            try:
                rows.append(self.log.read(name))
            except FileNotFoundError:
                compacted = True
            except (ValueError, OSError) as error:
                unreadable.append(f"{name}: {error}")
        put_events(connection, rows)
        if compacted:
            self._collect_segments(connection)
        return tuple(unreadable)

    def _unknown(self, connection: duckdb.DuckDBPyConnection, loose: list[str]) -> list[str]:
        names = {event_id(name): name for name in loose}
        found = connection.execute(
            """select id from (select unnest($1::varchar[]) as id)
            where id not in (select id::varchar from event semi join
                (select unnest($1::varchar[])::uuid as id) using (id))
            and id not in (select id::varchar from incoming)""",
            [list(names)],
        ).fetchall()
        return sorted(names[row[0]] for row in found)

    def _collect_segments(self, connection: duckdb.DuckDBPyConnection) -> None:
        known = {row[0] for row in connection.execute("select name from segment").fetchall()}
        new = [name for name in self.log.segments() if name not in known]
        if new:
            take_segments(connection, self.log, new)

    def _packages(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Package lists of new attempts. One whose blob is lost stays unknown."""
        digests = connection.execute(
            """select distinct packages_digest from fact.attempt_started
            where packages_digest is not null
            and packages_digest not in (select digest from package)"""
        ).fetchall()
        for (digest,) in sorted(digests):
            try:
                packages = json.loads(self.log.blob(digest))
            except (FileNotFoundError, ValueError):
                continue
            connection.execute(
                "insert into package select $1, unnest($2::varchar[]), unnest($3::varchar[])",
                [digest, list(packages), list(packages.values())],
            )


def attach(path: str | Path) -> duckdb.DuckDBPyConnection:
    """A read-only connection to the index as it is now, with its views and macros.

    Attached to a private in-memory database: DuckDB would otherwise hand out the instance that this
    process opened earlier under the same name, which is the file from before the last advance.
    """
    connection = duckdb.connect()
    try:
        connection.execute(f"attach {quote(path)} as lineage (read_only)")
        connection.execute("use lineage")
    except duckdb.Error:
        connection.close()
        raise
    return connection


def _sql(name: str) -> str:
    return resources.files(__package__).joinpath(f"{name}.sql").read_text()


def _count(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    row = connection.execute(query).fetchone()
    return row[0] if row else 0
