"""The list of runs, and what a search finds: runs, artifacts, files."""

import contextlib
from functools import lru_cache
from typing import Any

import duckdb

from flows import processes
from flows.live.lineage import opened
from foundry_core.errors import FoundryError
from foundry_core.lineage.connection import rows

Json = dict[str, Any]
SHOWN = 100
_FOUND = 50
_FIRST_LINE = 400
_DIGITS = set("0123456789abcdef")


def runs_answer(connection: duckdb.DuckDBPyConnection, words: str) -> Json:
    """runs, newest first: rows of run_summary with verdict (its first sentence, or null) and gone;
    `more` when there are others. words: of a run's id or pipeline, of a stage, or the beginning of
    a key, each of which must fit; empty for all."""
    found = rows(
        connection,
        f"""{_FITS}
        select run_id, pipeline, status, started_at, seconds, overrides, stages, ran, reused,
            failed, scores, ablation_id, variant, error
        from run_summary where len($1) = 0 or run_id in (from fits)
        order by started_at desc, run_id desc limit {SHOWN + 1}""",
        [list(dict.fromkeys(words.lower().split()))],
        of=Json,
    )
    shown = found[:SHOWN]
    dead = {one.id for one in processes.entries("run") if one.dead}
    lines = _verdicts(connection, [row["run_id"] for row in shown])
    for row in shown:
        row["verdict"] = lines.get(row["run_id"])
        row["gone"] = row["status"] == "running" and row["run_id"] in dead
    return {"runs": shown, "more": len(found) > SHOWN}


# A run fits where each of the words does.
_FITS = """with asked as (select unnest($1::varchar[]) as word),
    hit as (
        select run_id, word from fact.run_started, asked
        where contains(lower(run_id), word) or contains(lower(pipeline), word)
        union
        select run_id, word from run_stage s, asked
        where contains(lower(s.stage), word)
            or (length(word) >= 6 and starts_with(coalesce(s.artifact_key, s.key), word))),
    fits as (select run_id from hit group by run_id having count(distinct word) = len($1))"""


def dead_stamp() -> tuple[str, ...]:
    """Moves when a run's process dies, of which the lineage hears nothing."""
    return tuple(one.id for one in processes.entries("run") if one.dead)


def search_answer(connection: duckdb.DuckDBPyConnection, words: str) -> Json:
    """artifacts: {key, kind, stages, aliases, present, created_at} that a key's beginning, a kind,
    a stage's name, an alias or a file's sha256 finds; newest first."""
    word = words.lower().strip()
    if not word:
        return {"artifacts": [], "more": False}
    is_digest = len(word) == 64 and set(word) <= _DIGITS
    found = rows(
        connection,
        f"""with named as (
            select coalesce(artifact_key, key) as key, list(distinct stage) as stages
            from run_stage group by all),
        called as (select key, list(alias) as aliases from alias group by key)
        select a.key, a.kind, coalesce(n.stages, []) as stages,
            coalesce(c.aliases, []) as aliases, a.present, a.created_at
        from artifact a left join named n using (key) left join called c using (key)
        where starts_with(a.key, $1) or contains(lower(a.kind), $1)
            or len(list_filter(n.stages, lambda one: contains(lower(one), $1))) > 0
            or len(list_filter(c.aliases, lambda one: contains(lower(one), $1))) > 0
            or ($2 and a.key in (select key from file where sha256 = $1))
        order by a.created_at desc, a.key limit {_FOUND + 1}""",
        [word, is_digest],
        of=Json,
    )
    return {"artifacts": found[:_FOUND], "more": len(found) > _FOUND}


def _verdicts(connection: duckdb.DuckDBPyConnection, runs: list[str]) -> dict[str, str]:
    """Run → the first sentence of its comparison, as far as it is there."""
    found = rows(
        connection,
        """select s.run_id, any_value(s.kind order by s.position desc) as kind,
            any_value(v.key order by s.position desc) as key,
            any_value(v.content order by s.position desc) as content
        from run_stage s join run_artifact v using (run_id, stage)
        where s.kind in ('compare', 'verdict') and list_contains($1::varchar[], s.run_id)
        group by s.run_id""",
        [runs],
        of=Json,
    )
    lines = {}
    for row in found:
        # Gone, or out of reach for now: the run is listed without.
        with contextlib.suppress(OSError, FoundryError):
            lines[row["run_id"]] = _first_line(row["kind"], row["key"], row["content"])
    return {run: line for run, line in lines.items() if line}


@lru_cache(maxsize=500)
def _first_line(kind: str, key: str, content: str) -> str:
    """content: whose verdict.txt it is, for the cache."""
    store = opened()
    artifact = store.read(kind, key)
    path = store.file_path(artifact, "verdict.txt") if artifact else None
    if path is None:
        raise FoundryError(f"{kind}/{key[:12]} has no verdict.txt")
    with path.open(encoding="utf-8", errors="replace") as text:
        return _whole_words(text.readline(_FIRST_LINE))


def _whole_words(line: str) -> str:
    """What was read of a line; of a longer one without the word that the limit cut."""
    whole = line.endswith("\n") or len(line) < _FIRST_LINE
    return line.strip() if whole else f"{line.rpartition(' ')[0]} …"
