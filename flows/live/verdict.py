"""What a run found: success of its evaluations, the comparison, what an ablation changed."""

from functools import lru_cache
from typing import Any

import duckdb

from flows.ablation.report import effects_rows
from flows.live.lineage import opened
from flows.live.stages import known_run
from flows.reports.looking import quality_rows
from flows.reports.verdict import VERDICTS, comparison_in
from foundry_core.errors import FoundryError
from foundry_core.evaluation.comparison.grids import summary_grids
from foundry_core.evaluation.comparison.sentences import verdict_sentences
from foundry_core.evaluation.comparison.tables import rows as comparison_rows
from foundry_core.lineage import queries
from foundry_core.lineage.connection import rows

Json = dict[str, Any]
_COLUMNS = 4  # of labels in one table
_PICTURE = "success.svg"


def verdict_answer(connection: duckdb.DuckDBPyConnection, run_id: str) -> Json:
    """sentences, tables {title, header, rows, notes}, pictures {kind, key, path, alt}: as far as
    they are known already."""
    run = known_run(connection, run_id)
    tables = [*_success(connection, run_id), *_quality(connection, run_id)]
    sentences: list[str] = []
    pictures: list[Json] = []
    for stage in run["stages"]:
        if stage["kind"] not in VERDICTS or stage["resolved_at"] is None:
            continue
        key = stage["artifact_key"] or stage["key"]
        try:
            found = _compared(stage["kind"], key)
        except (FoundryError, OSError) as error:
            sentences.append(f"The comparison cannot be shown: {error}")
            continue
        sentences += found["sentences"]
        tables += found["tables"]
        pictures += found["pictures"]
    if run["ablation_id"] == run_id:
        tables += _effects(connection, run_id)
    return {"sentences": sentences, "tables": tables, "pictures": pictures}


def _success(connection: duckdb.DuckDBPyConnection, run_id: str) -> list[Json]:
    query = """select stage, task, n, successes, crashed, success_rate, low, high from run_scores
        where run_id = ? order by stage, task = 'all' desc, task limit 200"""
    found = rows(connection, query, [run_id], of=Json)
    body = [
        [
            row["stage"],
            "all tasks" if row["task"] == "all" else row["task"],
            f"{row['successes']} of {row['n']}",
            _percent(row["success_rate"]),
            "" if row["low"] is None else f"{_percent(row['low'])} to {_percent(row['high'])}",
            str(row["crashed"] or ""),
        ]
        for row in found
    ]
    header = ["evaluation", "task", "successes", "rate", "95 % interval", "crashed"]
    shown = len(header) if any(row[-1] for row in body) else -1
    return [_table("Success", header[:shown], [row[:shown] for row in body])] if body else []


def _percent(rate: float | None) -> str:
    return "" if rate is None else f"{100 * rate:.1f} %"


def _quality(connection: duckdb.DuckDBPyConnection, run_id: str) -> list[Json]:
    header, body = quality_rows(connection, run_id)
    return [_table("From language to success", header, body)] if header else []


def _effects(connection: duckdb.DuckDBPyConnection, ablation_id: str) -> list[Json]:
    header, *body = effects_rows(queries.ablation_effects(connection, ablation_id))
    return [_table("What changed", header, body)] if body else []


@lru_cache(maxsize=100)
def _compared(kind: str, key: str) -> Json:
    store = opened()
    artifact = store.read(kind, key)
    if artifact is None:
        raise FoundryError(f"{kind}/{key[:12]} is not in the store", "run its stage with --force")
    comparison = comparison_in(store, artifact)
    if len(comparison.labels) > _COLUMNS:
        grids = summary_grids(comparison, "all tasks", comparison)
        tables = [_table(one.title, one.header, one.rows, one.notes) for one in grids]
    else:
        header, *body = comparison_rows(comparison)
        tables = [_table("Comparison", header, body)]
    drawn = any(file.path == _PICTURE for file in artifact.files)
    picture = {"kind": kind, "key": key, "path": _PICTURE, "alt": "Success per task, compared"}
    return {
        "sentences": verdict_sentences(comparison),
        "tables": tables,
        "pictures": [picture] if drawn else [],
    }


def _table(title: str, header: Any, body: Any, notes: Any = ()) -> Json:
    return {
        "title": title,
        "header": list(header),
        "rows": [list(row) for row in body],
        "notes": list(notes),
    }
