"""Questions to the lineage index: what the command line, the report and notebooks ask.

Every function takes a connection from `connect` and returns plain data that JSON can hold. `ref`
is a run id, an artifact key, a unique prefix of one (8 digits or more), or an alias.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import duckdb

from foundry_core.errors import FoundryError
from foundry_core.home import home_dir
from foundry_core.lineage.answers import (
    Change,
    FileRow,
    GraphEdge,
    GraphNode,
    ScoreRow,
    TraceNode,
    WhyAnswer,
    WhyRun,
)
from foundry_core.lineage.connection import attach, first_line, json_value, rows
from foundry_core.lineage.statements import ask

INDEX_NAME = "lineage.duckdb"
Json = dict[str, Any]
Row = TypeVar("Row", bound=Mapping[str, object])
_KEY_HINT = '`foundry plan` and `foundry lineage sql "from artifact"` show keys'
_THESE = "key in (select unnest($1::varchar[]))"


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
            f"the lineage index {path} cannot be opened ({first_line(error)})",
            "`foundry lineage rebuild` recreates it from the store",
        ) from None


def sql(connection: duckdb.DuckDBPyConnection, query: str) -> list[Json]:
    """Rows of any one query; columns of equal name become a, a_1. Nothing but the index can be read
    on this connection from then on: see `foundry_core.lineage.statements`."""
    return ask(connection, query)


def ablation(connection: duckdb.DuckDBPyConnection, ablation_id: str) -> Json:
    """The row of the view ablation. FoundryError for an unknown one."""
    query = "from ablation where ablation_id = ?"
    for row in rows(connection, query, [ablation_id], of=Json):
        return row
    raise FoundryError(
        f"{ablation_id!r} is not an ablation",
        '`foundry lineage sql "from ablation"` lists them',
    )


def ablation_effects(connection: duckdb.DuckDBPyConnection, ablation_id: str) -> list[Json]:
    """Its rows of the view ablation_effects, in the order of the variants."""
    query = """select e.* from ablation_effects e
        left join ablation_variant v using (ablation_id, variant)
        where ablation_id = ? order by v.position, e.path"""
    return rows(connection, query, [ablation_id], of=Json)


def runs(connection: duckdb.DuckDBPyConnection, limit: int | None = 20) -> list[Json]:
    """Rows of the view run_summary, newest first."""
    query = "from run_summary order by started_at desc, run_id desc limit ?"
    return rows(connection, query, [limit if limit is not None else 2**31], of=Json)


def show(connection: duckdb.DuckDBPyConnection, ref: str) -> Json:
    """One run: its row of the view pipeline_run with `stages` (rows of run_stage, see
    `answers.StageRow`), `attempts` and `compute`. Or one artifact: its row of the view artifact
    (only key and present where it was never committed) with the rows that hang on it."""
    if _is_run(connection, ref):
        run = rows(connection, "from pipeline_run where run_id = ?", [ref], of=Json)[0] | _rows_of(
            connection,
            ref,
            stages="""select * exclude (run_id) from run_stage where run_id = ?
                order by position nulls last, stage""",
            attempts="""select * exclude (run_id) from attempt where run_id = ?
                order by started_at, key""",
            compute="""select * exclude (run_id, pipeline) from compute_spent_saved
                where run_id = ?""",
        )
        return run | {"compute": run["compute"][0]}
    key = resolve(connection, ref)
    found = rows(connection, "from artifact where key = ?", [key], of=Json)
    return (found[0] if found else {"key": key, "present": False}) | _rows_of(
        connection,
        key,
        inputs="select * exclude (key) from artifact_input where key = ? order by slot, label",
        file_list="select * exclude (key) from file where key = ? order by path",
        scores="select * exclude (key) from eval_scores where key = ? order by task",
        attempts="select * exclude (key) from attempt where key = ? order by started_at",
        continued_by="""select key, step from continuation where from_key = ?
            order by step, key""",
        versions="""select * exclude (key) from artifact_version where key = ?
            qualify count(*) over () > 1 order by created_at""",
        aliases="select alias, set_at from alias where key = ? order by alias",
        used_by="""select a.key, a.kind, a.present from artifact_input i
            join artifact a using (key) where i.upstream_key = ? order by a.kind, a.key""",
        runs="""select run_id, stage, action from run_stage
            where coalesce(artifact_key, key) = ? order by run_id, stage""",
    )


def _rows_of(
    connection: duckdb.DuckDBPyConnection, ref: str, **queries: str
) -> dict[str, list[Json]]:
    return {name: rows(connection, query, [ref], of=Json) for name, query in queries.items()}


def resolve(connection: duckdb.DuckDBPyConnection, ref: str) -> str:
    """The full key of a key, prefix or alias. FoundryError when there is none, or several."""
    return rows(connection, "select key_of(?) as key", [ref], of=Json, hint=_KEY_HINT)[0]["key"]


def trace(connection: duckdb.DuckDBPyConnection, ref: str) -> list[TraceNode]:
    """From a result to every byte, setting and line of code behind it.

    One tree per root: the artifact, or the evaluations of a run. A node holds key, kind, role (the
    slot it fills), content digest, recipe, seed, sources, code identity and commit, files with
    digests, scores, attempt and cost, and its inputs as nodes. An artifact that was shown before
    comes again as {"key", "kind", "role", "repeated": True}.
    """
    if not _is_run(connection, ref):
        _built(connection, ref)
    query = "select * exclude (depth, role) from trace(?)"
    found = rows(connection, query, [ref], of=TraceNode, hint=_KEY_HINT)
    nodes = {node["key"]: node for node in found}
    kinds = f"select distinct key, kind from stage_spec where {_THESE}"
    unknown = [key for key, node in nodes.items() if node["kind"] is None]
    for planned in rows(connection, kinds, [unknown], of=Json):
        nodes[planned["key"]]["kind"] = planned["kind"]
    keys = sorted(nodes)
    files = _by_key(connection, f"from file where {_THESE} order by path", keys, FileRow)
    scores = _by_key(connection, f"from eval_scores where {_THESE} order by task", keys, ScoreRow)
    for key, node in nodes.items():
        node["file_list"] = files.get(key, [])
        node["scores"] = scores.get(key, [])
    edges = _by_key(
        connection,
        f"select key, role, upstream_key from edge where {_THESE} order by key, role, upstream_key",
        keys,
        Json,
    )
    roots = rows(connection, "select key from roots(?) order by key", [ref], of=Json)
    shown: set[str] = set()
    return [_tree(root["key"], nodes, edges, shown) for root in roots]


def _tree(
    root: str,
    nodes: Mapping[str, TraceNode],
    edges: Mapping[str, Sequence[Json]],
    shown: set[str],
) -> TraceNode:
    """The tree below a key, with a stack of its own: histories can be deeper than Python's."""
    top: list[TraceNode] = []
    pending = [(root, "", top)]
    while pending:
        key, role, siblings = pending.pop()
        node: TraceNode = {"role": role, "key": key, "kind": nodes[key]["kind"]}
        siblings.append(node)
        if key in shown:
            node["repeated"] = True
            continue
        shown.add(key)
        inputs: list[TraceNode] = []
        node.update(nodes[key])
        node["inputs"] = inputs
        below = [(edge["upstream_key"], edge["role"], inputs) for edge in edges.get(key, ())]
        pending += reversed(below)
    return top[0]


def why(connection: duckdb.DuckDBPyConnection, ref: str) -> WhyAnswer:
    """Why an artifact was built (or is reused): the reasons its runs recorded, oldest first, and
    what differs from the artifact of the same stage that came before it."""
    key = resolve(connection, ref)
    history = rows(
        connection,
        """select s.run_id, r.started_at, s.stage, s.kind, s.planned, s.action, s.how, s.reasons,
            s.artifact_key
        from run_stage s left join pipeline_run r using (run_id)
        where s.key = $1 or s.artifact_key = $1 order by r.started_at, s.run_id""",
        [key],
        of=WhyRun,
    )
    before = rows(
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
        of=Json,
    )
    previous = before[0]["key"] if before else None
    return {
        "key": key,
        "runs": history,
        "previous": previous,
        "changes": diff(connection, previous, key) if previous else [],
    }


def diff(connection: duckdb.DuckDBPyConnection, a: str, b: str) -> list[Change]:
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
    changes = rows(connection, query, [a, b], of=Change, hint=_KEY_HINT)
    return [{**one, "old": _leaf(one["old"]), "new": _leaf(one["new"])} for one in changes]


def _built(connection: duckdb.DuckDBPyConnection, ref: str) -> None:
    """FoundryError for an artifact that was only ever planned."""
    key = resolve(connection, ref)
    planned = """select kind, run_id from stage_spec where key = $1
        and $1 not in (select key from fact.committed) order by run_id limit 1"""
    for row in rows(connection, planned, [key], of=Json):
        raise FoundryError(
            f"{row['kind']}/{key[:12]} was planned by {row['run_id']}, but never built",
            f"`foundry lineage why {key[:12]}` tells what was planned",
        )


def graph_of(
    connection: duckdb.DuckDBPyConnection, ref: str
) -> tuple[list[GraphNode], list[GraphEdge]]:
    """(nodes, edges) for `foundry_core.lineage.graph`: the stages of a run, or an ancestry."""
    if _is_run(connection, ref):
        stages = rows(
            connection,
            """select stage as name, kind, coalesce(artifact_key, key) as key, action
            from run_stage where run_id = ? order by position nulls last, stage""",
            [ref],
            of=GraphNode,
        )
        inputs = """select upstream_stage as source, stage as target, slot as label
            from stage_input where run_id = $1
            union all
            select a.stage, b.stage, 'continued from step ' || c.step
            from continuation c
                join run_artifact a on a.run_id = $1 and a.key = c.from_key
                join run_artifact b on b.run_id = $1 and b.key = c.key
            order by all"""
        return stages, rows(connection, inputs, [ref], of=GraphEdge)
    _built(connection, ref)
    nodes = rows(
        connection,
        """select key as name, kind, key, if(present, 'reuse', 'gone') as action
        from upstream(?) order by depth desc nulls first, role, key""",
        [ref],
        of=GraphNode,
        hint=_KEY_HINT,
    )
    edges = rows(
        connection,
        f"""select upstream_key as source, key as target, role as label from edge
        where {_THESE} order by all""",
        [[node["name"] for node in nodes]],
        of=GraphEdge,
    )
    return nodes, edges


def _is_run(connection: duckdb.DuckDBPyConnection, ref: str) -> bool:
    query = "select 1 from fact.run_started where run_id = ?"
    return bool(rows(connection, query, [ref], of=Json))


def _by_key(
    connection: duckdb.DuckDBPyConnection, query: str, keys: Sequence[str], of: type[Row]
) -> dict[str, list[Row]]:
    """The rows of a query, less their column `key`, by it."""
    grouped: dict[str, list[Row]] = {}
    for row in rows(connection, query, [keys], of=Json):
        grouped.setdefault(row.pop("key"), []).append(cast(Row, row))
    return grouped


def _leaf(text: str | None) -> Any:
    """A leaf of a recipe, from its JSON spelling; codes and kinds are bare words."""
    try:
        return json_value(text)
    except ValueError:
        return text
