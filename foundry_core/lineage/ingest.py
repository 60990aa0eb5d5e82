"""Projects events into tables, twenty or a whole log, by the same SQL.

Of one entity (the key columns of a `Projection`) the event with the greatest (time, id) decides:
among the new events first, then against the row that is already there. Its child rows go with it.
"""

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import duckdb

from foundry_core.lineage.projection import PROJECTIONS, Projection

# Events on their way into tables. Not a temp table: those are hidden from the other cursors.
INCOMING = "scratch.incoming"


def create_incoming(connection: duckdb.DuckDBPyConnection) -> None:
    """The table INCOMING, in memory, for as long as the connection is open."""
    connection.execute("attach ':memory:' as scratch")
    connection.execute(
        f"create table {INCOMING} (id uuid, time timestamp, type varchar, run_id varchar,"
        " data varchar)"
    )


def create_facts(connection: duckdb.DuckDBPyConnection) -> None:
    """The empty tables of the projections. Needs INCOMING."""
    for projection in PROJECTIONS:
        connection.execute(
            f"create table {projection.table} as"
            f" select {_row(projection)} from ({_parsed(projection)}) limit 0"
        )


def ingest(connection: duckdb.DuckDBPyConnection, *, fresh: bool = False) -> int:
    """Projects what lies in INCOMING; returns how many events that were. `fresh`: the tables are
    empty and nobody reads them (rebuild), so that no transaction needs to span them all."""
    present = {
        row[0] for row in connection.execute(f"select distinct type from {INCOMING}").fetchall()
    }
    due = [one for one in PROJECTIONS if one.event in present and one.shares is None]
    if fresh:
        _project_side_by_side(connection, due)
    else:
        for projection in due:
            _project(connection, projection, fresh)
    found = connection.execute(
        f"insert into event select id, time, type, run_id from {INCOMING}"
    ).fetchone()
    return found[0] if found else 0


def _project_side_by_side(connection: duckdb.DuckDBPyConnection, due: Sequence[Projection]) -> None:
    """Each projection fills tables of its own. DuckDB gives a core 120,000 rows at a time, which is
    more than most of them have: one after the other they leave all cores but one idle."""

    def alone(projection: Projection, cursor: duckdb.DuckDBPyConnection) -> None:
        with contextlib.closing(cursor):
            _project(cursor, projection, fresh=True)

    widest_first = sorted(due, key=lambda projection: -len(projection.children))
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        cursors = [connection.cursor() for _ in widest_first]
        list(pool.map(alone, widest_first, cursors))


def _project(connection: duckdb.DuckDBPyConnection, projection: Projection, fresh: bool) -> None:
    connection.execute(f"create or replace temp table parsed as {_parsed(projection)}")
    for other in PROJECTIONS:
        if other.shares is projection:
            part = f"select event_id, event_time, {_narrowed(other.structure)} as d from parsed"
            connection.execute(f"create or replace temp table latest as {_keyed(other, part)}")
            _write_rows(connection, other, fresh)
    connection.execute("drop table if exists latest")
    connection.execute("alter table parsed rename to latest")
    _write_rows(connection, projection, fresh)


def _write_rows(connection: duckdb.DuckDBPyConnection, projection: Projection, fresh: bool) -> None:
    """The rows of the events in the temp table `latest`."""
    if projection.has_key:
        _keep_latest(connection, projection)
        if not fresh:
            _compare_with_known(connection, projection)
    connection.execute(f"insert into {projection.table} select {_row(projection)} from latest")
    for table, query in projection.children.items():
        connection.execute(f"insert into {table} {query}")


def _row(projection: Projection) -> str:
    values = (f"{sql} as {name}" for name, sql in projection.columns.items())
    return ", ".join(("event_id", "event_time", *values))


def _keep_latest(connection: duckdb.DuckDBPyConnection, projection: Projection) -> None:
    """Leaves the latest event of every entity. Looks at keys and times only, where a window over
    the whole would sort the parsed events, wide and nested; there are few to drop."""
    keys = ", ".join(projection.key)
    several = f"select 1 from latest group by {keys} having count(*) > 1 limit 1"
    if connection.execute(several).fetchone():
        connection.execute(
            f"""delete from latest where rowid in (
                select place from (
                    select rowid as place, row_number() over (
                        partition by {keys} order by event_time desc, event_id desc) as rank
                    from latest)
                where rank > 1)"""
        )


def _compare_with_known(connection: duckdb.DuckDBPyConnection, projection: Projection) -> None:
    """Drops new events that are older than the known rows, and known rows that are older."""
    keys, table = ", ".join(projection.key), projection.table
    known = connection.execute(f"select 1 from {table} semi join latest using ({keys}) limit 1")
    if not known.fetchone():
        return
    same = " and ".join(f"known.{name} = latest.{name}" for name in projection.key)
    connection.execute(
        f"""delete from latest using {table} known where {same}
        and (known.event_time, known.event_id) >= (latest.event_time, latest.event_id)"""
    )
    for stale in (*projection.children, table):
        connection.execute(f"delete from {stale} where ({keys}) in (select {keys} from latest)")


def _parsed(projection: Projection) -> str:
    """The projection's events of INCOMING: event_id, event_time, d and the key columns."""
    structure = json.dumps(projection.structure).replace("'", "''")
    return _keyed(
        projection,
        f"""select id as event_id, time as event_time, from_json(data, '{structure}') as d
            from {INCOMING} where type = '{projection.event}'""",
    )


def _keyed(projection: Projection, parsed: str) -> str:
    key = projection.key if projection.has_key else ()
    chosen = "".join(f", {projection.columns[name]} as {name}" for name in key)
    known = "".join(f" and {projection.columns[name]} is not null" for name in key)
    return f"""
        select event_id, event_time, d{chosen} from ({parsed})
        where {projection.where}{known}"""


def _narrowed(structure: Mapping[str, Any], record: str = "d") -> str:
    """The fields of a structure, out of a record that has more."""
    fields = (
        f"'{name}': " + (_narrowed(part, field) if isinstance(part, Mapping) else field)
        for name, part in structure.items()
        for field in (f"{record}.{name}",)
    )
    return f"{{{', '.join(fields)}}}"
