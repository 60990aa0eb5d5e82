"""The recorded episodes of a run's evaluations, failures first; of those still played, too."""

import contextlib
import re
from typing import Any

import duckdb

from flows.live.lineage import opened
from flows.live.stages import known_run
from flows.reports.episodes_page import VIDEO
from foundry_core.lineage.connection import rows
from foundry_core.store.manifest import is_key

Json = dict[str, Any]
# Where an evaluation under way keeps them: below its scratch.
PICTURES = "pictures"
FILMSTRIP = re.compile(r"frames/([^/]+)/(\d+)_(success|failure)\.(png)")
_SHOWN = 60
_LOOKED_AT = 5000


def rollouts_answer(connection: duckdb.DuckDBPyConnection, run_id: str) -> Json:
    """rollouts: {stage, kind, key, task, scenario, outcome, path, size, live}, failures first; a
    filmstrip where a stage kept no videos. count and failures: of all there are."""
    found: list[Json] = []
    for stage in known_run(connection, run_id)["stages"]:
        name, key = stage["stage"], stage["artifact_key"] or stage["key"]
        if stage["resolved_at"] is None:
            files, live = _being_made(key), True
        else:
            files, live = _committed(connection, key), False
        episodes = _episodes(files, VIDEO) or _episodes(files, FILMSTRIP)
        named = {"stage": name, "kind": stage["kind"], "key": key, "live": live}
        found += [named | one for one in episodes]
    found.sort(key=lambda one: (one["outcome"], one["task"], one["scenario"], one["stage"]))
    failures = sum(one["outcome"] == "failure" for one in found)
    return {"rollouts": found[:_SHOWN], "count": len(found), "failures": failures}


def _committed(connection: duckdb.DuckDBPyConnection, key: str) -> list[tuple[str, int]]:
    query = """select path, size from file where key = coalesce(
            (select linked_to from artifact where key = $1), $1)
        and (starts_with(path, 'records/videos/') or starts_with(path, 'frames/'))
        order by path limit 5000"""
    return [(row["path"], row["size"]) for row in rows(connection, query, [key], of=Json)]


def _being_made(key: str) -> list[tuple[str, int]]:
    folder = opened().scratch(key) / PICTURES
    found: list[tuple[str, int]] = []
    if not is_key(key) or not folder.is_dir():
        return found
    for pattern in ("records/videos/*/*", "frames/*/*"):
        for path in folder.glob(pattern):
            if len(found) >= _LOOKED_AT:
                break
            with contextlib.suppress(OSError):
                found.append((path.relative_to(folder).as_posix(), path.stat().st_size))
    return sorted(found)


def _episodes(files: list[tuple[str, int]], kind: re.Pattern[str]) -> list[Json]:
    found = []
    for path, size in files:
        if named := kind.fullmatch(path):
            episode = {"task": named[1], "scenario": int(named[2]), "outcome": named[3]}
            found.append(episode | {"path": path, "size": size})
    return found
