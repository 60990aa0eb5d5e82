"""What an event log holds that an index has not taken in."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import duckdb

from foundry_core.lineage.events import EventLog, event_id


@dataclass(frozen=True, kw_only=True)
class Pending:
    """events: the new loose ones. segments: names of new ones. loose: how many event files there
    are, new or not. unreadable: damaged event files."""

    events: Sequence[dict[str, Any]]
    segments: Sequence[str]
    loose: int
    unreadable: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.events or self.segments)


def find_pending(log: EventLog, index: duckdb.DuckDBPyConnection | None) -> Pending:
    """What is not in the index; everything where there is none.

    An event may be in both, or in two segments: the reader drops it by its id. None slips through:
    loose names are listed before segments, and an event is loose until its segment is durable.
    """
    loose = log.loose()
    segments = _new_segments(log, index)
    new = _new_events(index, loose) if index else loose
    events, compacted, unreadable = read_events(log, new)
    if compacted:
        segments = _new_segments(log, index)
    return Pending(events=events, segments=segments, loose=len(loose), unreadable=unreadable)


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


def read_events(
    log: EventLog, names: Sequence[str]
) -> tuple[list[dict[str, Any]], bool, tuple[str, ...]]:
    """(events, whether some were compacted meanwhile, the unreadable ones)."""
    events: list[dict[str, Any]] = []
    unreadable: list[str] = []
    compacted = False
    for name in names:
        try:
            events.append(log.read(name))
        except FileNotFoundError:
            compacted = True
        except (ValueError, OSError) as error:
            unreadable.append(f"{name}: {error}")
    return events, compacted, tuple(unreadable)
