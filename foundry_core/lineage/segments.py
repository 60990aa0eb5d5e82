"""Compaction: many small event files become one immutable Parquet segment, and small segments
become larger ones.

Create-only, and what was packed is deleted only after the segment is durable, so a crash or a
second compactor leaves duplicates at worst, which every reader drops by event id.
"""

import contextlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb

from foundry_core.files import json_line, sha256_hex
from foundry_core.lineage.connection import quote
from foundry_core.lineage.events import (
    SCHEMA,
    SEGMENTS,
    EventLog,
    encode,
    event_name,
    nanoseconds,
)
from foundry_core.lineage.ingest import INCOMING

SEGMENT_EVENTS = 10_000
_COLUMNS = ("id", "time", "type", "run_id")
_READERS = 8


def compact(log: EventLog, *, least: int, keep: int = 0) -> int:
    """Packs the loose events but the newest `keep`; returns how many. Fewer than `least` stay
    loose. A segment takes in those that are not more than twice its size, so that their number
    grows with the logarithm of the events, and each event is packed again as often at most."""
    loose = log.loose()
    old = loose[: len(loose) - keep]
    packed = 0
    for first in range(0, len(old), SEGMENT_EVENTS):
        names = old[first : first + SEGMENT_EVENTS]
        if len(names) >= least:
            packed += _pack(log, names)
    return packed


def _pack(log: EventLog, names: Sequence[str]) -> int:
    """One segment. Damaged files are left where they are, to be found by every advance."""
    with ThreadPoolExecutor(_READERS) as pool:
        found = list(zip(names, pool.map(lambda name: _readable(log, name), names), strict=True))
    kept = [name for name, event in found if event]
    events = [event for _, event in found if event]
    if not events:
        return 0
    merged = []
    for name, count in sorted(_small(log), key=lambda segment: segment[1]):
        if count > 2 * len(events) or count + len(events) > SEGMENT_EVENTS:
            break
        with contextlib.suppress(FileNotFoundError, ValueError):  # another compactor's, or damaged
            events += read_segment(log, name)
            merged.append(name)
    written = write_segment(log, events)
    log.blobs.delete(*kept, *(name for name in merged if name != written))
    return len(kept)


def _readable(log: EventLog, name: str) -> dict[str, Any] | None:
    with contextlib.suppress(FileNotFoundError, ValueError):
        return log.read(name)
    return None


def _small(log: EventLog) -> list[tuple[str, int]]:
    """(name, count) of segments that may still be merged. Earlier versions wrote no counts."""
    parts = ((name, name.removesuffix(".parquet").split("-")) for name in log.segments())
    return [(name, int(part[3])) for name, part in parts if len(part) == 4]


def write_segment(log: EventLog, events: Sequence[dict[str, Any]]) -> str:
    """Stores events as one durable segment, what is there twice once; returns its name, which tells
    its span of time, the digest of what it holds, and how many."""
    lines = {encode(event): event for event in events}
    distinct = [lines[line] for line in sorted(lines, key=lambda line: _order(lines[line]))]
    times = [nanoseconds(event_name(e["time"], e["id"])) for e in distinct]
    digest, count = segment_digest(distinct), len(distinct)
    name = f"{SEGMENTS}/{min(times):019d}-{max(times):019d}-{digest}-{count}.parquet"
    log.blobs.create(name, _parquet(distinct))
    return name


def segment_digest(events: Sequence[dict[str, Any]]) -> str:
    """What a segment's name says of its events, which are in their order."""
    return sha256_hex(b"".join(map(encode, events)))[:16]


def _order(event: dict[str, Any]) -> tuple[str, str, str]:
    return event["time"], event["id"], json_line(event.get("chain"))


def _parquet(events: Sequence[dict[str, Any]]) -> bytes:
    columns: list[list[Any]] = [[event.get(name) for event in events] for name in _COLUMNS]
    columns.append([json_line(event["data"]) for event in events])
    columns.append([json_line(event["chain"]) if "chain" in event else None for event in events])
    columns.append([event.get("schema") for event in events])
    with tempfile.TemporaryDirectory() as folder, duckdb.connect() as connection:
        path = Path(folder) / "segment.parquet"
        connection.execute(
            """create table packed as select unnest($1::varchar[])::uuid as id,
            unnest($2::varchar[])::timestamp as time, unnest($3::varchar[]) as type,
            unnest($4::varchar[]) as run_id, unnest($5::varchar[]) as data,
            unnest($6::varchar[]) as chain, unnest($7::integer[]) as schema""",
            columns,
        )
        connection.execute(f"copy packed to {quote(path)} (format parquet, compression zstd)")
        return path.read_bytes()


def read_segment(log: EventLog, name: str) -> list[dict[str, Any]]:
    """The events as they were written, in the segment's order. Raises FileNotFoundError, and
    ValueError for what is no segment."""
    with _local_copies(log, [name]) as (path,), duckdb.connect() as connection:
        try:
            found = connection.execute(
                f"""select * replace (strftime(time, '%Y-%m-%dT%H:%M:%S.%fZ') as time,
                id::varchar as id) from read_parquet({quote(path)}, file_row_number = true)
                order by file_row_number"""
            )
            names = [column[0] for column in found.description or ()]
            rows = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
            return [_event(row) for row in rows]
        except (duckdb.Error, KeyError, TypeError) as error:
            raise ValueError(f"{name} is no segment: {error}") from None


def _event(row: dict[str, Any]) -> dict[str, Any]:
    event = {name: row[name] for name in _COLUMNS}
    event |= {"schema": row.get("schema") or SCHEMA, "data": json.loads(row["data"])}
    return event | ({"chain": json.loads(row["chain"])} if row.get("chain") else {})


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
    """Appends the segments' unknown events to INCOMING and the names to `segment`. Raises
    FileNotFoundError when one was merged into another meanwhile."""
    with _local_copies(log, names) as paths:
        source = f"read_parquet([{', '.join(map(quote, paths))}])"
        try:
            connection.execute(
                f"""insert into {INCOMING} select id, time, type, run_id, data from {source}
                where id not in (select id from event) and id not in (select id from {INCOMING})"""
            )
        except duckdb.IOException:
            if all(path.exists() for path in paths):
                raise
            raise FileNotFoundError(f"{names} were merged meanwhile") from None
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
            if path is not None and not path.exists():
                raise FileNotFoundError(name)
            if path is None:
                path = Path(folder, f"{number}.parquet")
                path.write_bytes(log.blobs.read(name))
            paths.append(path)
        yield paths
