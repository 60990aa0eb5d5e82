"""The graph of a run, and one artifact of it: what it is, what it came from, who uses it."""

from collections.abc import Mapping
from typing import Any

import duckdb

from flows.live.previews import holds_shards
from flows.live.stages import check_known, why
from foundry_core.errors import FoundryError
from foundry_core.lineage import graph, queries
from foundry_core.lineage.connection import rows
from foundry_core.lineage.render import leaves
from foundry_core.store.manifest import is_key

Json = dict[str, Any]
# Of each list; what is beyond is counted.
_MOST = 100
_MOST_NODES = 300
_LONGEST = 2000
_FACTS = (
    *("key", "kind", "present", "content", "seed", "code", "seconds", "created_at", "run_id"),
    *("attempt", "linked_to", "files", "bytes", "git_commit", "git_dirty", "removed_reason"),
)
_LISTS: Mapping[str, tuple[str, ...]] = {
    "inputs": ("slot", "label", "kind", "upstream_key"),
    "used_by": ("key", "kind", "present"),
    "file_list": ("path", "size", "role"),
    "attempts": ("run_id", "attempt", "state", "started_at", "seconds", "host", "error"),
    "scores": ("task", "successes", "n", "success_rate", "low", "high"),
    "aliases": ("alias",),
}


def graph_answer(connection: duckdb.DuckDBPyConnection, ref: str) -> Json:
    """What an artifact was made from, laid out; see `graph.placed`. FoundryError for more than a
    page can draw."""
    nodes, edges = queries.graph_of(connection, ref)
    if len(nodes) > _MOST_NODES:
        raise FoundryError(
            f"the graph has {len(nodes)} nodes, the page draws {_MOST_NODES} at most",
            f"foundry lineage graph {ref[:64]} --format svg",
        )
    return graph.placed(nodes, edges)


def run_graph_answer(connection: duckdb.DuckDBPyConnection, run_id: str) -> Json:
    """The same of a run. FoundryError for an unknown one."""
    check_known(connection, run_id)
    return graph_answer(connection, run_id)


def artifact_answer(connection: duckdb.DuckDBPyConnection, key: str) -> Json:
    """facts, recipe and metrics as [path, value], lists (see _LISTS) with `counts` of each whole,
    planned: the runs that only planned it with why, previous and changes: from the artifact that
    the stage had before. FoundryError for an unknown key."""
    if not is_key(key):
        raise FoundryError(f"{key[:80]!r} is no key", "64 hex digits")
    found = queries.show(connection, key)
    reasons = queries.why(connection, key)
    lists = {
        name: [{column: one[column] for column in columns} for one in found[name][:_MOST]]
        for name, columns in _LISTS.items()
    }
    paths = [file["path"] for file in found["file_list"]]
    names = "select distinct stage from run_stage where coalesce(artifact_key, key) = ? limit 100"
    return {
        "facts": {name: found.get(name) for name in _FACTS},
        "stages": sorted(row["stage"] for row in rows(connection, names, [key], of=Json)),
        "kind": found.get("kind") or _planned_kind(connection, key),
        "recipe": _leaves(found.get("recipe")),
        "metrics": _leaves(found.get("metrics")),
        "lists": lists,
        "counts": {name: len(found[name]) for name in _LISTS},
        "why": [
            {
                "run_id": one["run_id"],
                "stage": one["stage"],
                "action": one["action"],
                "why": why(one["reasons"], one["how"]),
            }
            for one in reasons["runs"][-_MOST:]
        ],
        "previous": reasons["previous"],
        "changes": [
            {**change, "old": _short(change["old"]), "new": _short(change["new"])}
            for change in reasons["changes"][:_MOST]
        ],
        "previews": bool(found["present"]) and holds_shards(paths),
    }


def _planned_kind(connection: duckdb.DuckDBPyConnection, key: str) -> str | None:
    query = "select any_value(kind) as kind from stage_spec where key = ?"
    return rows(connection, query, [key], of=Json)[0]["kind"]


def _leaves(value: Any) -> list[list[str]]:
    if not isinstance(value, dict):
        return []
    return [[path, _short(leaf)] for path, leaf in list(leaves(value))[: 5 * _MOST]]


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
