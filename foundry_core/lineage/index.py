"""The DuckDB index over the event log.

A few new events go to the tail (see `tail`); more are folded in a private copy of the index that
is then renamed into place. Both happen under a file lock, and an open reader keeps the files it
opened: it never waits, never sees half a write, and DuckDB never has two writers. The index holds
nothing that the log does not, so deleting it costs a rebuild.
"""

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
import time
import uuid
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import duckdb

from foundry_core.errors import FoundryError
from foundry_core.lineage.events import EventLog, event_id
from foundry_core.lineage.ingest import INCOMING, create_incoming, create_views, ingest
from foundry_core.lineage.segments import compact, put_events, quote, take_segments
from foundry_core.lineage.tail import (
    MAX_BYTES,
    MAX_EVENTS,
    Header,
    Tails,
    lines_of,
    new_packages,
    signature,
)

SCHEMA_VERSION = 7
# Listing loose events costs every advance 0.1 ms per hundred.
COMPACT_ABOVE = 5000
COMPACT_AFTER_SECONDS = 3600.0


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
        self._tails = Tails(self.path)

    def advance(self) -> Advance:
        """Takes in what the log has gained. Rebuilds when there is no usable index of this log."""
        start = time.monotonic()
        with self._lock():
            appended = self._append()
            count, unreadable = appended if appended is not None else self._fold()
        return Advance(events=count, seconds=time.monotonic() - start, unreadable=unreadable)

    def rebuild(self) -> Advance:
        """Recreates the index from the log alone; readers see the old one until it is whole."""
        start = time.monotonic()
        with self._lock():
            count, unreadable = self._rebuild()
        return Advance(events=count, seconds=time.monotonic() - start, unreadable=unreadable)

    def _append(self) -> tuple[int, tuple[str, ...]] | None:
        """The fast way: new events go to the tail. None when they must be folded instead."""
        found = self._tails.current(self.path) if self.path.exists() else None
        if found is None or found[1].log != self.log.blobs.uri:
            return None
        token, header, lines = found
        loose = self.log.loose()
        if not header.segments.issuperset(self.log.segments()):
            return None
        new = [name for name in loose if name not in header.loose]
        if header.events + len(new) > MAX_EVENTS:
            return None
        events, gone, unreadable = read_events(self.log, new)
        added = lines_of(list(events.values()))
        too_long = len(lines) + len(added) > MAX_BYTES
        if gone or too_long or new_packages(events.values(), header.packages):
            return None
        if events:
            header = replace(
                header,
                loose=header.loose.intersection(loose).union(events),
                events=header.events + len(events),
            )
            self._tails.write(token, header, lines + added)
        return len(events), unreadable

    def _fold(self) -> tuple[int, tuple[str, ...]]:
        """The thorough way: all that is new, and the tail, into a copy that replaces the index."""
        held = self._tails.current(self.path) if self.path.exists() else None
        connection = self._open_copy()
        if connection is None:
            return self._rebuild()
        with contextlib.closing(connection):
            count, unreadable, publication = self._take_in(connection, fresh=False)
        self._publish(publication)
        if len(publication[1].loose) > COMPACT_ABOVE:
            compact(self.log, older_than_seconds=COMPACT_AFTER_SECONDS)
        return count - (held[1].events if held else 0), unreadable

    def _rebuild(self) -> tuple[int, tuple[str, ...]]:
        self._clear_draft()
        with contextlib.closing(duckdb.connect(self._draft)) as connection:
            connection.execute("set preserve_insertion_order = false")  # rows are a set
            connection.execute(_sql("schema"))
            meta = [SCHEMA_VERSION, self.log.blobs.uri]
            connection.execute("insert into meta values (?, ?, null)", meta)
            count, unreadable, publication = self._take_in(connection, fresh=True)
        self._publish(publication)
        return count, unreadable

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

    def _open_copy(self) -> duckdb.DuckDBPyConnection | None:
        """The draft, as a copy of the index; None when there is no usable index of this log."""
        try:
            shutil.copyfile(self.path, self._draft)
            connection = duckdb.connect(self._draft)
        except (FileNotFoundError, duckdb.Error):
            return None
        try:
            found = connection.execute("select schema_version, log from meta").fetchone()
        except duckdb.Error:
            found = None
        if found == (SCHEMA_VERSION, self.log.blobs.uri):
            return connection
        connection.close()
        return None

    def _publish(self, publication: tuple[str, Header]) -> None:
        token, header = publication
        self._tails.begin(token, replace(header, index=signature(self._draft)))
        os.replace(self._draft, self.path)
        self._tails.make_current(token)

    def _take_in(
        self, connection: duckdb.DuckDBPyConnection, *, fresh: bool
    ) -> tuple[int, tuple[str, ...], tuple[str, Header]]:
        """Folds what is not in the tables yet; returns also the empty tail that comes with it."""
        token = uuid.uuid4().hex[:16]
        create_incoming(connection)
        if fresh:
            # Views take as long to define as events to read.
            with ThreadPoolExecutor(1) as beside:
                views = beside.submit(self._point_views, connection.cursor(), token, fresh)
                unreadable, loose = self._collect(connection)
            views.result()
        else:
            unreadable, loose = self._collect(connection)
            # One write. A rebuild fills a draft that nobody sees: this would write it all twice.
            connection.execute("begin")
            self._point_views(connection, token, fresh)
        (count,) = connection.execute(f"select count(*) from {INCOMING}").fetchone() or (0,)
        if count:
            ingest(connection, fresh=fresh)
            self._packages(connection)
        if not fresh:
            connection.execute("commit")
        header = Header(
            index=(0, 0),
            log=self.log.blobs.uri,
            loose=loose,
            segments=_column(connection, "select name from segment"),
            packages=_column(
                connection,
                """select distinct packages_digest from base.attempt_started
                where packages_digest is not null""",
            ),
        )
        return count, unreadable, (token, header)

    def _point_views(self, connection: duckdb.DuckDBPyConnection, token: str, fresh: bool) -> None:
        """`tail.event` reads the tail that the connection pinned (see `attach`), else, for those
        who open the file by themselves, the living one."""
        self._tails.begin(token, _NO_HEADER)
        connection.execute(
            f"""create or replace view tail.event as select id, time, type, run_id, data
            from read_json(coalesce(getvariable('lineage_tail'), {quote(self._tails.path(token))}),
                format = 'newline_delimited', maximum_object_size = {16 * MAX_BYTES}, columns = {{
                    id: 'uuid', time: 'timestamp', type: 'varchar', run_id: 'varchar',
                    data: 'varchar'}})
            where type <> 'header'"""
        )
        connection.execute("update meta set tail = ?", [token])
        if fresh:
            create_views(connection)
            connection.execute(_sql("views"))
            connection.execute(_sql("macros"))

    def _collect(
        self, connection: duckdb.DuckDBPyConnection
    ) -> tuple[tuple[str, ...], frozenset[str]]:
        """Fills INCOMING with the events not yet known; returns the unreadable, and all loose
        names that are in now.

        Loose names are listed before segments: an event is loose until its segment is durable, so
        in this order none can slip through; one met twice is dropped by its id.
        """
        loose = self.log.loose()
        self._collect_segments(connection)
        events, gone, unreadable = read_events(self.log, self._unknown(connection, loose))
        put_events(connection, list(events.values()))
        if gone:
            self._collect_segments(connection)
        damaged = {problem.partition(":")[0] for problem in unreadable}
        return unreadable, frozenset(loose) - damaged

    def _unknown(self, connection: duckdb.DuckDBPyConnection, loose: list[str]) -> list[str]:
        names = {event_id(name): name for name in loose}
        found = connection.execute(
            f"""select id from (select unnest($1::varchar[]) as id)
            where id not in (select id::varchar from base.event semi join
                (select unnest($1::varchar[])::uuid as id) using (id))
            and id not in (select id::varchar from {INCOMING})""",
            [list(names)],
        ).fetchall()
        return sorted(names[row[0]] for row in found)

    def _collect_segments(self, connection: duckdb.DuckDBPyConnection) -> None:
        known = _column(connection, "select name from segment")
        new = [name for name in self.log.segments() if name not in known]
        if new:
            take_segments(connection, self.log, new)

    def _packages(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Package lists of new attempts. One whose blob is lost stays unknown."""
        digests = _column(
            connection,
            """select distinct packages_digest from base.attempt_started
            where packages_digest is not null
            and packages_digest not in (select digest from base.package)""",
        )
        for digest in sorted(digests):
            try:
                packages = json.loads(self.log.blob(digest))
            except (FileNotFoundError, ValueError):
                continue
            connection.execute(
                "insert into base.package select $1, unnest($2::varchar[]), unnest($3::varchar[])",
                [digest, list(packages), list(packages.values())],
            )


_NO_HEADER = Header(
    index=(0, 0), log="", loose=frozenset(), segments=frozenset(), packages=frozenset()
)


def read_events(
    log: EventLog, names: Sequence[str]
) -> tuple[dict[str, dict[str, Any]], bool, tuple[str, ...]]:
    """(name → event, whether some were compacted meanwhile, the unreadable ones)."""
    events: dict[str, dict[str, Any]] = {}
    unreadable: list[str] = []
    gone = False
    for name in names:
        try:
            events[name] = log.read(name)
        except FileNotFoundError:
            gone = True
        except (ValueError, OSError) as error:
            unreadable.append(f"{name}: {error}")
    return events, gone, tuple(unreadable)


def attach(path: str | Path) -> duckdb.DuckDBPyConnection:
    """A read-only connection to the index as it is now, with its views and macros.

    Attached to a private in-memory database: DuckDB would otherwise hand out the instance that this
    process opened earlier under the same name, which is the file from before the last fold. The
    tail is pinned by a link of its own, so that all of a query, and all queries, see one state.
    """
    path = Path(path).absolute()
    connection = duckdb.connect()
    try:
        _attach_file(connection, path)
        connection.execute("use lineage")
        (token,) = connection.execute("select tail from meta").fetchone() or ("",)
        tail = Tails(path).path(token)
        pin = tail.with_name(f"{token}.{os.getpid()}.{uuid.uuid4().hex}.pin")
        try:
            os.link(tail, pin)
            weakref.finalize(connection, pin.unlink, missing_ok=True)
            tail = pin
        except FileNotFoundError:
            raise FoundryError(
                f"the lineage index {path} has lost its tail {tail.name}",
                "`foundry lineage rebuild` recreates both",
            ) from None
        except OSError:
            pass  # a read-only home: nobody adds to the tail either
        connection.execute(f"set variable lineage_tail = {quote(tail)}")
    except BaseException:
        connection.close()
        raise
    return connection


def _attach_file(connection: duckdb.DuckDBPyConnection, path: Path) -> None:
    """As `lineage`. Someone may have opened the file for writing, which locks it: then a copy."""
    try:
        connection.execute(f"attach {quote(path)} as lineage (read_only)")
    except duckdb.IOException as error:
        if "lock" not in str(error):
            raise
        folder = Path(tempfile.mkdtemp(prefix="lineage-"))
        weakref.finalize(connection, shutil.rmtree, folder, ignore_errors=True)
        copy = shutil.copyfile(path, folder / path.name)
        connection.execute(f"attach {quote(copy)} as lineage (read_only)")


def forbid_files(connection: duckdb.DuckDBPyConnection) -> None:
    """Takes files and the network away from a connection of `attach`, for good."""
    setting = "select current_setting('enable_external_access'), getvariable('lineage_tail')"
    allowed, tail = connection.execute(setting).fetchone() or (False, "")
    if allowed:
        connection.execute(f"set allowed_paths = [{quote(tail)}]")
        connection.execute("set enable_external_access = false")


def _sql(name: str) -> str:
    return resources.files(__package__).joinpath(f"{name}.sql").read_text()


def _column(connection: duckdb.DuckDBPyConnection, query: str) -> frozenset[str]:
    return frozenset(row[0] for row in connection.execute(query).fetchall())
