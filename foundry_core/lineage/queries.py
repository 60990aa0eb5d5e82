"""Questions to the lineage index: what the command line, the report and notebooks ask.

Every function takes a connection from `connect` and returns plain data that JSON can hold. `ref`
is a run id, an artifact key, a unique prefix of one (8 digits or more), or an alias.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from itertools import chain, count
from pathlib import Path
from typing import Any
from uuid import UUID

import duckdb

from foundry_core.errors import FoundryError
from foundry_core.home import home_dir
from foundry_core.lineage.index import attach, forbid_files

INDEX_NAME = "lineage.duckdb"
Row = dict[str, Any]
_SQL_HINT = "tables and views: `show all tables`; see docs/lineage.md"
_EXPLAIN = re.compile(r"\s*explain\b(\s+analyze\b)?(\s*\([^()]*\))?", re.IGNORECASE)
_KEY_HINT = "`foundry lineage runs` lists runs; keys need at least 8 digits"


def connect(home: str | Path | None = None) -> duckdb.DuckDBPyConnection:
    """A read-only DuckDB connection with all tables, views and macros, as of now.

    It shows the index as it was when opened, and never blocks a run. FoundryError where nothing
    was indexed yet.
    """
    path = Path(home or home_dir()) / INDEX_NAME
    if not path.exists():
        raise FoundryError(
            f"no lineage index at {path}", "run a pipeline, or `foundry lineage rebuild`"
        )
    try:
        return attach(path)
    except duckdb.Error as error:
        raise FoundryError(
            f"the lineage index {path} cannot be opened ({_first_line(error)})",
            "`foundry lineage rebuild` recreates it from the store",
        ) from None


def sql(connection: duckdb.DuckDBPyConnection, query: str) -> list[Row]:
    """Rows of any read-only query; columns of equal name become a, a_1. Writing, files and
    extensions are refused, for good, on this connection."""
    forbid_files(connection)
    _only_queries(connection, query)
    return _rows(connection, query, hint=_SQL_HINT)


def _only_queries(connection: duckdb.DuckDBPyConnection, query: str) -> None:
    """Taking files away is not enough: the tail must stay readable, hence could be written to."""
    try:
        statements = connection.extract_statements(query)
    except duckdb.Error as error:
        raise FoundryError(f"lineage: {_first_line(error)}", _SQL_HINT) from None
    if not statements:
        raise FoundryError("lineage: the query is empty", _SQL_HINT)
    for statement in statements:
        if statement.type == duckdb.StatementType.EXPLAIN:
            _only_queries(connection, _EXPLAIN.sub("", statement.query) or statement.query)
        elif statement.type == duckdb.StatementType.MULTI:
            raise FoundryError("lineage: PIVOT needs its values", "pivot ... on column in (...)")
        elif statement.type != duckdb.StatementType.SELECT:
            raise FoundryError(
                f"lineage: only queries are answered, not {statement.type.name}", _SQL_HINT
            )


def runs(connection: duckdb.DuckDBPyConnection, limit: int | None = 20) -> list[Row]:
    """The latest runs, newest first."""
    query = "select * from run_summary order by started_at desc, run_id desc limit ?"
    return _rows(connection, query, [limit if limit is not None else 2**31])


def show(connection: duckdb.DuckDBPyConnection, ref: str) -> Row:
    """One run with its stages and cost, or one artifact with its files, inputs and uses."""
    if _is_run(connection, ref):
        return _show_run(connection, ref)
    key = resolve(connection, ref)
    found = _rows(connection, "select * from artifact where key = ?", [key])
    result = found[0] if found else {"key": key, "present": False}
    by_key = {
        "inputs": "select * exclude (key) from artifact_input where key = ? order by slot, label",
        "file_list": "select * exclude (key) from file where key = ? order by path",
        "scores": "select * exclude (key) from eval_scores where key = ? order by task",
        "attempts": "select * exclude (key) from attempt where key = ? order by started_at",
        "versions": """select * exclude (key) from artifact_version where key = ?
            qualify count(*) over () > 1 order by created_at""",
        "aliases": "select alias, set_at from alias where key = ? order by alias",
        "used_by": """select a.key, a.kind, a.present from artifact_input i
            join artifact a using (key) where i.upstream_key = ? order by a.kind, a.key""",
        "runs": """select run_id, stage, action from run_stage
            where coalesce(artifact_key, key) = ? order by run_id, stage""",
    }
    return result | {name: _rows(connection, query, [key]) for name, query in by_key.items()}


def _show_run(connection: duckdb.DuckDBPyConnection, run_id: str) -> Row:
    (run,) = _rows(connection, "select * from pipeline_run where run_id = ?", [run_id])
    cost = "select * exclude (run_id, pipeline) from compute_spent_saved where run_id = ?"
    stages = """select * exclude (run_id) from run_stage where run_id = ?
        order by position nulls last, stage"""
    attempts = "select * exclude (run_id) from attempt where run_id = ? order by started_at, key"
    return run | {
        "stages": _rows(connection, stages, [run_id]),
        "attempts": _rows(connection, attempts, [run_id]),
        "compute": _rows(connection, cost, [run_id])[0],
    }


def resolve(connection: duckdb.DuckDBPyConnection, ref: str) -> str:
    """The full key of a key, prefix or alias. FoundryError when there is none, or several."""
    return _rows(connection, "select key_of(?) as key", [ref], hint=_KEY_HINT)[0]["key"]


def trace(connection: duckdb.DuckDBPyConnection, ref: str) -> list[Row]:
    """From a result to every byte, setting and line of code behind it.

    One tree per root: the artifact, or the evaluations of a run. A node holds key, kind, role (the
    slot it fills), content digest, recipe, seed, sources, code identity and commit, files with
    digests, scores, attempt and cost, and its inputs as nodes. An artifact that was shown before
    stands as {"key", "kind", "role", "repeated": True}.
    """
    if not _is_run(connection, ref):
        _built(connection, ref)
    rows = _rows(connection, "select * from trace(?)", [ref], hint=_KEY_HINT)
    nodes = {row["key"]: row for row in rows}
    keys = sorted(nodes)
    kinds = "select distinct key, kind from stage_spec where key in (select unnest($1::varchar[]))"
    for planned in _rows(connection, kinds, [[k for k in keys if nodes[k]["kind"] is None]]):
        nodes[planned["key"]]["kind"] = planned["kind"]
    edges = _by_key(
        connection,
        """select key, role, upstream_key from edge where key in (select unnest($1::varchar[]))
        order by key, role, upstream_key""",
        keys,
    )
    details = {
        "file_list": "select * from file where key in (select unnest($1::varchar[])) order by path",
        "scores": """select * from eval_scores where key in (select unnest($1::varchar[]))
            order by task""",
    }
    found = {name: _by_key(connection, query, keys) for name, query in details.items()}
    for key, node in nodes.items():
        node |= {name: grouped.get(key, []) for name, grouped in found.items()}
        del node["role"], node["depth"]
    roots = [
        row["key"] for row in _rows(connection, "select key from roots(?) order by key", [ref])
    ]
    shown: set[str] = set()
    return [_node(root, "", nodes, edges, shown) for root in roots]


def _node(
    key: str,
    role: str,
    nodes: Mapping[str, Row],
    edges: Mapping[str, Sequence[Row]],
    shown: set[str],
) -> Row:
    """The tree below a key, with a stack of its own: histories can be deeper than Python's."""
    top: Row = {}
    pending = [(key, role, top)]
    while pending:
        key, role, target = pending.pop()
        target |= {"role": role, "key": key, "kind": nodes[key]["kind"]}
        if key in shown:
            target["repeated"] = True
            continue
        shown.add(key)
        children: list[Row] = [{} for _ in edges.get(key, ())]
        target |= nodes[key] | {"inputs": children}
        below = zip(edges.get(key, ()), children, strict=True)
        pending += reversed([(e["upstream_key"], e["role"], child) for e, child in below])
    return top


def why(connection: duckdb.DuckDBPyConnection, ref: str) -> Row:
    """Why an artifact was built (or is reused): the reasons its runs recorded, oldest first, and
    what differs from the artifact of the same stage that came before it."""
    key = resolve(connection, ref)
    history = _rows(
        connection,
        """select s.run_id, r.started_at, s.stage, s.kind, s.planned, s.action, s.how, s.reasons,
            s.artifact_key
        from run_stage s left join pipeline_run r using (run_id)
        where s.key = $1 or s.artifact_key = $1 order by r.started_at, s.run_id""",
        [key],
    )
    before = _rows(
        connection,
        """with me as (select s.stage, r.pipeline, min(r.started_at) as started_at
            from run_stage s join pipeline_run r using (run_id)
            where s.key = $1 or s.artifact_key = $1 group by all)
        select coalesce(s.artifact_key, s.key) as key, s.run_id
        from run_stage s join pipeline_run r using (run_id)
            join me on me.stage = s.stage and me.pipeline = r.pipeline
        where r.started_at < me.started_at and coalesce(s.artifact_key, s.key) <> $1
            and coalesce(s.artifact_key, s.key) in (select key from artifact)
        order by r.started_at desc limit 1""",
        [key],
    )
    previous = before[0]["key"] if before else None
    return {
        "key": key,
        "runs": history,
        "previous": previous,
        "changes": diff(connection, previous, key) if previous else [],
    }


def diff(connection: duckdb.DuckDBPyConnection, a: str, b: str) -> list[Row]:
    """Leaf by leaf: what differs between two runs' stages, or between everything two artifacts were
    made from. Rows {"place", "path", "old", "new"}; a place is a stage, or a role such as
    `policy/vlm`, empty for the artifact itself. Where both runs have the same stage under the same
    key, also what came out otherwise: `content`, `metrics.*`."""
    runs = [ref for ref in (a, b) if _is_run(connection, ref)]
    if len(runs) == 1:
        other = b if runs == [a] else a
        raise FoundryError(
            f"{runs[0]} is a run and {other} is none", "give two runs, or two artifacts"
        )
    if not runs:
        for ref in (a, b):
            _built(connection, ref)
    query = "select * from config_diff(?, ?) order by place, path"
    rows = _rows(connection, query, [a, b], hint=_KEY_HINT)
    return [row | {name: _leaf(row[name]) for name in ("old", "new")} for row in rows]


def _built(connection: duckdb.DuckDBPyConnection, ref: str) -> None:
    """FoundryError for an artifact that was only ever planned."""
    key = resolve(connection, ref)
    planned = """select kind, run_id from stage_spec where key = $1
        and $1 not in (select key from fact.committed) order by run_id limit 1"""
    for row in _rows(connection, planned, [key]):
        raise FoundryError(
            f"{row['kind']}/{key[:12]} was planned by {row['run_id']}, but never built",
            f"`foundry lineage why {key[:12]}` tells what was planned",
        )


def graph_of(connection: duckdb.DuckDBPyConnection, ref: str) -> tuple[list[Row], list[Row]]:
    """(nodes, edges) for `foundry_core.lineage.graph`: the stages of a run, or an ancestry."""
    if _is_run(connection, ref):
        stages = _rows(
            connection,
            """select stage as name, kind, coalesce(artifact_key, key) as key, action
            from run_stage where run_id = ? order by position nulls last, stage""",
            [ref],
        )
        inputs = """select upstream_stage as source, stage as target, slot as label
            from stage_input where run_id = ? order by all"""
        return stages, _rows(connection, inputs, [ref])
    _built(connection, ref)
    nodes = _rows(
        connection,
        """select key as name, kind, key, if(present, 'reuse', 'gone') as action
        from upstream(?) order by depth desc nulls first, role, key""",
        [ref],
        hint=_KEY_HINT,
    )
    edges = _rows(
        connection,
        """select upstream_key as source, key as target, role as label from edge
        where key in (select unnest($1::varchar[])) order by all""",
        [[node["name"] for node in nodes]],
    )
    return nodes, edges


def _is_run(connection: duckdb.DuckDBPyConnection, ref: str) -> bool:
    return bool(_rows(connection, "select 1 from fact.run_started where run_id = ?", [ref]))


def _by_key(
    connection: duckdb.DuckDBPyConnection, query: str, keys: list[str]
) -> dict[str, list[Row]]:
    grouped: dict[str, list[Row]] = {}
    for row in _rows(connection, query, [keys]):
        grouped.setdefault(row.pop("key"), []).append(row)
    return grouped


def _run(
    connection: duckdb.DuckDBPyConnection,
    query: str,
    parameters: Sequence[Any] = (),
    hint: str = "",
) -> duckdb.DuckDBPyConnection:
    try:
        return connection.execute(query, list(parameters))
    except duckdb.Error as error:
        raise FoundryError(f"lineage: {_first_line(error)}", hint) from None


def _rows(
    connection: duckdb.DuckDBPyConnection,
    query: str,
    parameters: Sequence[Any] = (),
    hint: str = "",
) -> list[Row]:
    """JSON columns are decoded; times become ISO strings in UTC."""
    cursor = _run(connection, query, parameters, hint)
    if cursor.description is None:
        return []
    names = _distinct(column[0] for column in cursor.description)
    decode = [json_value if str(column[1]) == "JSON" else plain for column in cursor.description]
    try:
        fetched = cursor.fetchall()
    except duckdb.Error as error:
        raise FoundryError(f"lineage: {_first_line(error)}", hint) from None
    return [
        {name: take(value) for name, take, value in zip(names, decode, row, strict=True)}
        for row in fetched
    ]


def _distinct(names: Iterable[str]) -> list[str]:
    found: list[str] = []
    for name in names:
        spellings = chain([name], (f"{name}_{number}" for number in count(1)))
        found.append(next(spelling for spelling in spellings if spelling not in found))
    return found


def json_value(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def plain(value: Any) -> Any:
    """A value that JSON can hold."""
    if isinstance(value, datetime):
        return value.isoformat(timespec="microseconds") + ("" if value.tzinfo else "Z")
    if isinstance(value, UUID | date):
        return str(value)
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def _leaf(text: str | None) -> Any:
    """A leaf of a recipe, from its JSON spelling; codes and kinds are bare words."""
    try:
        return json_value(text)
    except ValueError:
        return text


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].removeprefix("Invalid Input Error: ")
