"""Compaction: many small event files become one immutable Parquet segment.

Create-only, and the small files are deleted only after the segment is durable, so a crash or a
second compactor leaves duplicates at worst, which every reader drops by event id.
"""

import contextlib
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb

from foundry_core.files import json_line, sha256_hex
from foundry_core.lineage.connection import quote
from foundry_core.lineage.events import SEGMENTS, EventLog, event_name, nanoseconds
from foundry_core.lineage.ingest import INCOMING, create_incoming

_SEGMENT_EVENTS = 10_000
_COLUMNS = ("id", "time", "type", "run_id")


def compact(log: EventLog, *, older_than_seconds: float = 600, least: int = 500) -> int:
    """Packs loose events that are old enough; returns how many. Fewer than `least` stay loose.

    The youngest stay loose because advancing reads single files fastest.
    """
    limit = time.time_ns() - int(older_than_seconds * 1e9)
    old = [name for name in log.loose() if nanoseconds(name) < limit]
    packed = 0
    for first in range(0, len(old), _SEGMENT_EVENTS):
        names = old[first : first + _SEGMENT_EVENTS]
        if len(names) >= least:
            packed += _pack(log, names)
    return packed


def _pack(log: EventLog, names: Sequence[str]) -> int:
    """One segment. Damaged files are left where they are, to be found by every advance."""
    kept, events = [], []
    for name in names:
        with contextlib.suppress(FileNotFoundError, ValueError):
            events.append(log.read(name))
            kept.append(name)
    if events:
        write_segment(log, events)
        for name in kept:
            log.blobs.delete(name)
    return len(kept)


def write_segment(log: EventLog, events: Sequence[dict[str, Any]]) -> str:
    """Stores events as one durable segment; returns its name, which tells its span of time."""
    digest = sha256_hex("".join(e["id"] for e in events))[:16]
    times = [nanoseconds(event_name(e["time"], e["id"])) for e in events]
    name = f"{SEGMENTS}/{min(times):019d}-{max(times):019d}-{digest}.parquet"
    log.blobs.create(name, _parquet(events))
    return name


def _parquet(events: Sequence[dict[str, Any]]) -> bytes:
    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as connection:
        create_incoming(connection)
        put_events(connection, events)
        path = Path(folder) / "segment.parquet"
        connection.execute(
            f"""copy (select * from {INCOMING} order by time, id)
            to {quote(path)} (format parquet, compression zstd)"""
        )
        return path.read_bytes()


def put_events(connection: duckdb.DuckDBPyConnection, events: Sequence[dict[str, Any]]) -> None:
    """Appends events to the table INCOMING; one list per column is 1000× executemany."""
    if events:
        columns = [[event.get(name) for event in events] for name in _COLUMNS]
        data = [json_line(event["data"]) for event in events]
        connection.execute(
            f"""insert into {INCOMING} select unnest($1::varchar[])::uuid,
            unnest($2::varchar[])::timestamp, unnest($3::varchar[]), unnest($4::varchar[]),
            unnest($5::varchar[])""",
            [*columns, data],
        )


def take_segments(
    connection: duckdb.DuckDBPyConnection, log: EventLog, names: Sequence[str]
) -> None:
    """Appends the segments' unknown events to INCOMING and the names to `segment`."""
    with _local_copies(log, names) as paths:
        source = f"read_parquet([{', '.join(map(quote, paths))}])"
        connection.execute(
            f"""insert into {INCOMING} select id, time, type, run_id, data from {source}
            where id not in (select id from event) and id not in (select id from {INCOMING})"""
        )
    # Two compactors may have packed one event each; rare, hence not part of the query above.
    twice = connection.execute(f"select count(*) - count(distinct id) from {INCOMING}").fetchone()
    if twice and twice[0]:
        connection.execute(
            f"""delete from {INCOMING} where rowid not in (
                select min(rowid) from {INCOMING} group by id)"""
        )
    connection.execute("insert into segment select unnest($1::varchar[])", [list(names)])


@contextlib.contextmanager
def _local_copies(log: EventLog, names: Sequence[str]) -> Iterator[list[Path]]:
    """Paths that DuckDB can open without network extensions."""
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number, name in enumerate(names):
            path = log.blobs.local(name)
            if path is None:
                path = Path(folder, f"{number}.parquet")
                path.write_bytes(log.blobs.read(name))
            paths.append(path)
        yield paths
