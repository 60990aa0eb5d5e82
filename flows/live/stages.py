"""The answer that a run's page asks for again and again: the run, and what each stage is at."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import duckdb

from flows import processes
from flows.runs.progress import progress_of, stamp_of
from foundry_core.errors import FoundryError
from foundry_core.home import home_dir
from foundry_core.lineage import queries
from foundry_core.lineage.answers import StageRow
from foundry_core.lineage.connection import rows
from foundry_core.pipeline.reasons import Reason, sentences

Json = dict[str, Any]
_RUN = (
    *("run_id", "pipeline", "status", "started_at", "finished_at", "seconds", "overrides"),
    *("parent", "ablation_id", "variant", "host", "git_commit", "git_dirty", "error"),
)
_HOW = {"content": "same recipe, same input bytes", "unneeded": "nobody needs it"}
_ENDED = {"run": "done", "reuse": "reused"}
_LONGEST = 2000
_HUGE = 1e300


def run_answer(connection: duckdb.DuckDBPyConnection, run_id: str) -> Json:
    """run, and stages in the order of the pipeline: {name, kind, key, state, planned, why, plan,
    seconds, error, progress, attempts}. state: waits, runs, reused, done, failed, cancelled,
    blocked, stopped, or gone (its process is). FoundryError for an unknown run."""
    run = known_run(connection, run_id)
    planned = _planned(connection, run_id)
    folder = home_dir() / "runs" / run_id
    gone = is_gone(run_id)
    at_work = run["status"] == "running" and not gone
    known = progress_of(folder)
    attempts: dict[str, list[Json]] = {}
    for attempt in run["attempts"]:
        attempts.setdefault(attempt["stage"], []).append(attempt)
    stages = [
        _stage(row, attempts.get(row["stage"], []), known.get(row["stage"]), at_work)
        | {"plan": planned.get(row["stage"], [])}
        for row in run["stages"]
    ]
    shown = {name: run[name] for name in _RUN}
    shown |= {"gone": gone, "report": (folder / "report.html").is_file()}
    return {"run": shown, "compute": run["compute"], "stages": stages}


def known_run(connection: duckdb.DuckDBPyConnection, run_id: str) -> Json:
    """`queries.show` of a run. FoundryError for an unknown one."""
    check_known(connection, run_id)
    return queries.show(connection, run_id)


def check_known(connection: duckdb.DuckDBPyConnection, run_id: str) -> None:
    """FoundryError for an unknown run."""
    query = "select 1 from pipeline_run where run_id = ?"
    if not rows(connection, query, [run_id], of=Json):
        raise FoundryError(f"no run is called {run_id!r}", "`foundry lineage runs` lists them")


def run_stamp(run_id: str) -> tuple[Any, ...]:
    """Moves when the answer may be another one, of what the lineage does not tell."""
    folder = home_dir() / "runs" / run_id
    return stamp_of(folder), is_gone(run_id), (folder / "report.html").is_file()


def is_gone(run_id: str) -> bool:
    """Whether the run's process died before it could say how it ended."""
    return any(one.id == run_id and one.dead for one in processes.entries("run"))


def why(reasons: Sequence[Mapping[str, Any]] | None, how: str | None = None) -> list[str]:
    """Reasons as a plan recorded them, as sentences."""
    said = sentences(map(Reason.told, reasons or ()))
    return [*said, *([_HOW[how]] if how in _HOW else [])]


def _planned(connection: duckdb.DuckDBPyConnection, run_id: str) -> dict[str, list[str]]:
    query = "select stage, reasons from stage_spec where run_id = ?"
    found = rows(connection, query, [run_id], of=Json)
    return {row["stage"]: why(row["reasons"]) for row in found}


def _stage(row: StageRow, attempts: Sequence[Json], progress: Json | None, at_work: bool) -> Json:
    last = attempts[-1] if attempts else None
    state = _state(row, last, progress, at_work)
    ended = _ended(progress)
    seconds = last["seconds"] if last else None
    error = (progress or {}).get("error") or (last or {}).get("error")
    working = state in ("runs", "waits") and progress is not None and at_work
    return {
        "name": row["stage"],
        "kind": row["kind"],
        "key": row["artifact_key"] or row["key"],
        "planned": row["planned"],
        "state": state,
        "why": why(row["reasons"], row["how"]),
        "seconds": (seconds or ended["seconds"]) if state == "done" else None,
        "error": str(error)[:_LONGEST] if error and state in ("failed", "gone") else None,
        "attempts": len(attempts),
        "progress": shown_progress(progress) if working and progress else None,
    }


def _ended(progress: Json | None) -> Json:
    """What the run itself says of a stage's end: action, as a state, and seconds; null each."""
    told = (progress or {}).get("ended")
    said = told if isinstance(told, dict) else {}
    action = _ENDED.get(str(said.get("action")))
    return {"action": action, "seconds": _number(said.get("seconds"))}


def _state(row: StageRow, last: Json | None, progress: Json | None, at_work: bool) -> str:
    if row["resolved_at"] is not None:
        return _ENDED.get(row["action"], row["action"])
    if not at_work:
        # Of a run that said nothing of its end, what it had begun is not known to have failed.
        ended = row["action"] in ("failed", "cancelled", "blocked")
        begun = last is not None or progress is not None
        return row["action"] if ended else "gone" if begun else "blocked"
    if progress is None:
        return "runs" if last and last["state"] == "running" else "waits"
    if "error" in progress:
        return "cancelled" if progress.get("cancelled") is True else "failed"
    if action := _ended(progress)["action"]:
        return action
    waiting = "done" not in progress and progress.get("message")
    return "waits" if waiting else "runs"


def shown_progress(state: Mapping[str, Any]) -> Json:
    """Counts, the newest numbers and how long it will still take: {done, total, left, message,
    values, at, since}. What is not a number where one is due is left out."""
    numbers = {name: _number(state.get(name)) for name in ("done", "total", "at", "since")}
    values = state.get("values")
    shown = {
        str(name)[:80]: value
        for name, value in (values.items() if isinstance(values, dict) else ())
        if _number(value) is not None
    }
    message = str(state.get("message") or "")[:_LONGEST]
    return {**numbers, "left": _left(state), "message": message, "values": shown}


def _left(state: Mapping[str, Any]) -> float | None:
    """Seconds to the end at the pace since the first step that was seen, so that what a training
    resumed from counts for nothing."""
    first = state.get("first")
    begin = first if isinstance(first, dict) else {}
    done, at, total = (_number(state.get(name)) for name in ("done", "at", "total"))
    begun, since = _number(begin.get("done")), _number(begin.get("at"))
    if done is None or at is None or total is None or begun is None or since is None:
        return None
    if done <= begun or at <= since:
        return None
    return max(0.0, (total - done) * (at - since) / (done - begun))


def _number(value: Any) -> float | None:
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return value if known and abs(value) < _HUGE and not math.isnan(value) else None
