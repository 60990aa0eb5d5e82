"""The event of a committed artifact, with the rows of its records: one writer for the live run and
for the rebuild, so that both write the same."""

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from foundry_core.files import read_json_lines
from foundry_core.lineage.event_types import ArtifactCommitted

METRICS = "records/metrics.jsonl"
EPISODES = "records/episodes.jsonl"
SCORES = "records/scores.jsonl"
_EPISODE = ("task", "scenario", "success", "steps", "seconds", "crash", "seed")
_SCORE = ("task", "n", "successes", "crashed", "pending", "rate", "low", "high")

# Gives the local path of a file of the artifact; None when it has no such file.
Record = Callable[[str], Path | None]


def committed_event(manifest: Mapping[str, Any], record: Record) -> ArtifactCommitted:
    """Reads the records of an artifact. ValueError for a line that is no JSON object."""
    return ArtifactCommitted(
        artifact=manifest,
        metric_rows=list(_metrics(record)),
        episode_rows=[_columns(row, _EPISODE) for row in _objects(record, EPISODES)],
        score_rows=[_columns(row, _SCORE) for row in _objects(record, SCORES)],
    )


def _metrics(record: Record) -> Iterator[dict[str, Any]]:
    """{"step": int, name: number, ...} per line, as a row per number."""
    for row in _objects(record, METRICS):
        step = row.pop("step", None)
        for name, value in row.items():
            if isinstance(value, int | float):
                yield {"step": step, "name": name, "value": _number(value)}


def _number(value: float) -> float:
    """Integers beyond every float, which JSON may hold, count as infinite."""
    try:
        return float(value)
    except OverflowError:
        return math.copysign(math.inf, value)


def _columns(row: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: row.get(name) for name in names}


def _objects(record: Record, name: str) -> Iterator[dict[str, Any]]:
    path = record(name)
    for row in read_json_lines(path) if path is not None else ():
        if not isinstance(row, dict):
            raise ValueError(f"{name}: {row!r} is no JSON object")
        yield row
