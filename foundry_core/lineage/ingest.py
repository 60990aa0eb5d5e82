"""Folds events into rows: into tables for good, or in views for the few that came last.

`base.*` holds what was folded. `tail.*` are views that fold the events of the tail file on the fly.
What people query shows both: a tail row hides the base rows of its entity, unless they are later.
The same SQL does either, for twenty events and for a whole log.
"""

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import duckdb

from foundry_core.lineage.projection import FOLDS, Fold

# Events on their way into tables. Not a temp table: those are hidden from the other cursors.
INCOMING = "scratch.incoming"


def create_incoming(connection: duckdb.DuckDBPyConnection) -> None:
    """The table INCOMING, in memory, for as long as the connection lives."""
    connection.execute("attach ':memory:' as scratch")
    connection.execute(
        f"create table {INCOMING} (id uuid, time timestamp, type varchar, run_id varchar,"
        " data varchar)"
    )


def ingest(connection: duckdb.DuckDBPyConnection, *, fresh: bool = False) -> None:
    """Folds what lies in INCOMING. `fresh`: the tables are empty and nobody reads them (rebuild),
    so that no transaction needs to span the folds."""
    present = {
        row[0] for row in connection.execute(f"select distinct type from {INCOMING}").fetchall()
    }
    folds = [fold for fold in FOLDS if fold.event in present and fold.shares is None]
    if fresh:
        _fold_side_by_side(connection, folds)
    else:
        for fold in folds:
            _fold(connection, fold, fresh)
    connection.execute(f"insert into base.event select id, time, type, run_id from {INCOMING}")


def _fold_side_by_side(connection: duckdb.DuckDBPyConnection, folds: Sequence[Fold]) -> None:
    """Each fold fills tables of its own. DuckDB gives a core 120,000 rows at a time, which is more
    than most folds have: one after the other they leave all cores but one idle."""

    def alone(fold: Fold, cursor: duckdb.DuckDBPyConnection) -> None:
        with contextlib.closing(cursor):
            _fold(cursor, fold, fresh=True)

    widest_first = sorted(folds, key=lambda fold: -len(fold.children))
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        cursors = [connection.cursor() for _ in widest_first]
        list(pool.map(alone, widest_first, cursors))


def _fold(connection: duckdb.DuckDBPyConnection, fold: Fold, fresh: bool) -> None:
    connection.execute(f"create or replace temp table parsed as {_parsed(fold, INCOMING)}")
    for other in FOLDS:
        if other.shares is fold:
            part = f"select event_id, event_time, {_narrowed(other.structure)} as d from parsed"
            connection.execute(f"create or replace temp table winner as {_keyed(other, part)}")
            _take_winners(connection, other, fresh)
    connection.execute("drop table if exists winner")
    connection.execute("alter table parsed rename to winner")
    _take_winners(connection, fold, fresh)


def _take_winners(connection: duckdb.DuckDBPyConnection, fold: Fold, fresh: bool) -> None:
    _drop_losers(connection, fold)
    if fold.rivals and not fresh:
        _settle(connection, fold)
    connection.execute(f"insert into {base(fold.table)} {_values(fold, 'winner')}")
    for table, query in fold.children.items():
        connection.execute(f"insert into {base(table)} {query.replace('{winner}', 'winner')}")


def _drop_losers(connection: duckdb.DuckDBPyConnection, fold: Fold) -> None:
    """Leaves the latest event of every entity, as `_latest` does. That one would sort the parsed
    events, wide and nested; losers are rare, and this looks at keys and times only."""
    keys = ", ".join(fold.key)
    several = f"select 1 from winner group by {keys} having count(*) > 1 limit 1"
    if connection.execute(several).fetchone():
        connection.execute(
            f"""delete from winner where rowid in (
                select place from (
                    select rowid as place, row_number() over (
                        partition by {keys} order by event_time desc, event_id desc) as rank
                    from winner)
                where rank > 1)"""
        )


def _settle(connection: duckdb.DuckDBPyConnection, fold: Fold) -> None:
    """Drops new rows that are older than the known ones, and known ones that are older."""
    keys = ", ".join(fold.key)
    rivals = connection.execute(
        f"select count(*) from {base(fold.table)} semi join winner using ({keys})"
    ).fetchone()
    if not rivals or not rivals[0]:
        return
    connection.execute(f"delete from winner using {base(fold.table)} known where {_beaten(fold)}")
    for table in (*fold.children, fold.table):
        connection.execute(
            f"delete from {base(table)} where ({keys}) in (select {keys} from winner)"
        )


def create_views(connection: duckdb.DuckDBPyConnection) -> None:
    """fact.* and main.*: the tables of `base` as the events of `tail.event` amend them."""
    connection.execute(
        """create view event as
        from base.event union all select id, time, type, run_id from tail.event"""
    )
    for fold in FOLDS:
        winner = f"tail.{_name(fold.table)}"
        beaten = f"anti join {base(fold.table)} known on {_beaten(fold)}" if fold.rivals else ""
        latest = f"select winner.* from ({_latest(fold, 'tail.event')}) winner {beaten}"
        connection.execute(f"create view {winner} as {latest}")
        _create_view(connection, fold, winner, fold.table, _values(fold, winner))
        for table, query in fold.children.items():
            _create_view(connection, fold, winner, table, query.replace("{winner}", winner))
    connection.execute("create view package as from base.package")


def _create_view(
    connection: duckdb.DuckDBPyConnection, fold: Fold, winner: str, table: str, news: str
) -> None:
    # Joins, not correlated subqueries: those take twice as long to plan, dozens of times per query.
    hidden = f"anti join {winner} winner on {_same(fold)}" if fold.rivals else ""
    connection.execute(
        f"create view {table} as select known.* from {base(table)} known {hidden} union all {news}"
    )


def base(table: str) -> str:
    return f"base.{_name(table)}"


def _name(table: str) -> str:
    return table.rpartition(".")[2]


def _latest(fold: Fold, events: str) -> str:
    """Of every entity the latest event; columns as `_parsed`."""
    return f"""
        select * from ({_parsed(fold, events)})
        qualify row_number() over (
            partition by {", ".join(fold.key)} order by event_time desc, event_id desc) = 1"""


def _parsed(fold: Fold, events: str) -> str:
    """The fold's events: event_id, event_time, d and the key columns."""
    structure = json.dumps(fold.structure).replace("'", "''")
    return _keyed(
        fold,
        f"""select id as event_id, time as event_time, from_json(data, '{structure}') as d
            from {events} where type = '{fold.event}'""",
    )


def _keyed(fold: Fold, parsed: str) -> str:
    chosen = "".join(f", {fold.columns[name]} as {name}" for name in fold.key if fold.rivals)
    known = "".join(f" and {fold.columns[name]} is not null" for name in fold.key if fold.rivals)
    return f"""
        select event_id, event_time, d{chosen} from ({parsed})
        where {fold.where}{known}"""


def _narrowed(structure: Mapping[str, Any], record: str = "d") -> str:
    """The fields of a structure, out of a record that has more."""
    fields = (
        f"'{name}': " + (_narrowed(part, field) if isinstance(part, Mapping) else field)
        for name, part in structure.items()
        for field in (f"{record}.{name}",)
    )
    return f"{{{', '.join(fields)}}}"


def _values(fold: Fold, winner: str) -> str:
    values = ", ".join(f"{sql} as {name}" for name, sql in fold.columns.items())
    return f"select event_id, event_time, {values} from {winner}"


def _same(fold: Fold) -> str:
    return " and ".join(f"known.{name} = winner.{name}" for name in fold.key)


def _beaten(fold: Fold) -> str:
    """Whether the row `known` stands against the row `winner`."""
    later = "(known.event_time, known.event_id) >= (winner.event_time, winner.event_id)"
    return f"{_same(fold)} and {later}"
