"""The event of a committed artifact, with the rows of its records: one writer for the live run and
for the rebuild, so that both write the same. A record is a by-product: a line of it that cannot be
read costs that line, not the work beside which it was written."""

import json
import math
import reprlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from foundry_core.lineage.event_types import ArtifactCommitted

METRICS = "records/metrics.jsonl"
THROUGHPUT = "records/throughput.jsonl"
VALIDATION = "records/validation.jsonl"
HELD_OUT = "records/held_out.json"
NOTES = "records/notes.json"
EPISODES = "records/episodes.jsonl"
SCORES = "records/scores.jsonl"
MEASURES = "records/measures.jsonl"
# Column → what it may hold; null and absent are allowed everywhere.
_Columns = Mapping[str, tuple[type, ...]]
_NUMBER = (int, float)
_STEP: _Columns = {"step": (int,)}
_EPISODE: _Columns = {
    "task": (str,),
    "scenario": (str, int),
    "success": (bool,),
    "steps": (int,),
    "seconds": _NUMBER,
    "crash": (str, bool),
    "seed": (int,),
}
_SCORE: _Columns = {
    "task": (str,),
    **dict.fromkeys(("n", "successes", "crashed", "pending"), (int,)),
    **dict.fromkeys(("rate", "low", "high"), _NUMBER),
}
_MEASURE: _Columns = {
    "task": (str,),
    "name": (str,),
    "n": (int,),
    **dict.fromkeys(("value", "low", "high"), _NUMBER),
}

# Gives the local path of a file of the artifact; None when it has no such file.
Record = Callable[[str], Path | None]


def committed_event(
    manifest: Mapping[str, Any], record: Record
) -> tuple[ArtifactCommitted, tuple[str, ...]]:
    """The event, and what is wrong with lines of the artifact's records that it leaves out: file,
    line, why."""
    problems: list[str] = []
    event = ArtifactCommitted(
        artifact=manifest,
        metric_rows=[
            *_metrics(_lines(record, METRICS, _STEP, problems)),
            *_metrics(_lines(record, THROUGHPUT, _STEP, problems), "throughput/"),
            *_metrics(_lines(record, VALIDATION, _STEP, problems), "validation/"),
        ],
        episode_rows=_rows(_lines(record, EPISODES, _EPISODE, problems), _EPISODE),
        score_rows=_rows(_lines(record, SCORES, _SCORE, problems), _SCORE),
        measure_rows=_rows(_lines(record, MEASURES, _MEASURE, problems), _MEASURE),
    )
    return event, tuple(problems)


def metric_lines(record: Record, name: str = METRICS) -> list[dict[str, Any]]:
    """The readable lines of an artifact's metrics: {"step": int, name: value, ...}."""
    return list(_lines(record, name, _STEP, []))


def _metrics(lines: Iterator[dict[str, Any]], prefix: str = "") -> Iterator[dict[str, Any]]:
    """{"step": int, name: number, ...} per line, as a row per number. prefix: of the names."""
    for row in lines:
        step = row.pop("step", None)
        for name, value in row.items():
            if isinstance(value, int | float):
                yield {"step": step, "name": prefix + name, "value": _number(value)}


def _number(value: float) -> float:
    """Integers beyond every float, which JSON may hold, count as infinite."""
    try:
        return float(value)
    except OverflowError:
        return math.copysign(math.inf, value)


def _rows(lines: Iterator[dict[str, Any]], columns: _Columns) -> list[dict[str, Any]]:
    return [{name: row.get(name) for name in columns} for row in lines]


def _lines(
    record: Record, name: str, columns: _Columns, problems: list[str]
) -> Iterator[dict[str, Any]]:
    """The lines whose columns are of their types; what is wrong with others goes to problems."""
    path = record(name)
    if path is None or not path.is_file():
        return
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                if line.strip():
                    yield _row(line, columns)
            except (ValueError, RecursionError) as error:
                problems.append(f"{name}, line {number}: {error}")


def _row(line: bytes, columns: _Columns) -> dict[str, Any]:
    row = json.loads(line)
    if not isinstance(row, dict):
        raise ValueError(f"{reprlib.repr(row)} is no JSON object")
    for column, types in columns.items():
        value = row.get(column)
        fits = value is None or type(value) in types
        if not fits or (type(value) is int and abs(value) >= 2**64):
            expected = " or ".join(kind.__name__ for kind in types)
            raise ValueError(f"{column} = {reprlib.repr(value)}, {expected} is expected")
    return row
