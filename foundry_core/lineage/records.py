"""The event of a commit, from artifact.json and the records beside it: one writer for the run that
commits and for whoever finds an artifact without its event."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from foundry_core.files import read_json_lines
from foundry_core.lineage.event_types import ArtifactCommitted

_EPISODE = ("task", "scenario", "success", "steps", "crash", "seed")
_SCORE = ("task", "n", "successes", "crashed", "pending", "rate", "low", "high")


def committed_event(
    manifest: Mapping[str, Any], record: Callable[[str], Path | None]
) -> ArtifactCommitted:
    """The event of an artifact. record: a file of it by name (records/metrics.jsonl,
    records/episodes.jsonl, records/scores.jsonl), or None where it has no such file.

    Raises ValueError for a record that is no JSON.
    """

    def lines(name: str) -> Iterator[dict[str, Any]]:
        path = record(f"records/{name}.jsonl")
        return read_json_lines(path) if path else iter(())

    return ArtifactCommitted(
        artifact=manifest,
        metric_rows=[row for line in lines("metrics") for row in _metrics(line)],
        episode_rows=[_only(_EPISODE, line) for line in lines("episodes")],
        score_rows=[_only(_SCORE, line) for line in lines("scores")],
    )


def _metrics(line: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """One row per number of a line {"step": int, name: number, ...}."""
    for name, value in line.items():
        if name != "step" and isinstance(value, int | float):
            yield {"step": line.get("step"), "name": name, "value": float(value)}


def _only(names: tuple[str, ...], line: Mapping[str, Any]) -> dict[str, Any]:
    return {name: line.get(name) for name in names}
