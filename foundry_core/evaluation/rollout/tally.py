"""Episodes as they finish: journalled for the next attempt, shown in the results tree, counted.

The journal lies in a stage's scratch folder, which survives a failed attempt of the same key: an
evaluation of hours that is killed goes on with the episodes that are missing. Crashed episodes
are not journalled; the next attempt tries them again.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from foundry_core.evaluation.rollout.episodes import Episode, EpisodePlan
from foundry_core.evaluation.rollout.results import EpisodeResult, write_results

_FIELDS = ("task", "scenario", "success", "seconds", "steps", "seed")


class Tally:
    """All planned episodes of one evaluation, pending until `add`ed."""

    def __init__(
        self, out: Path, scratch: Path, plans: Sequence[EpisodePlan], *, requested: int, budget: int
    ) -> None:
        self._out, self._scratch = out, scratch
        self._requested, self._budget = requested, budget
        self._results = {
            (p.scenario.task.name, p.scenario.index): EpisodeResult(
                task=p.scenario.task.name,
                scenario=p.scenario.index,
                success=None,
                pending=True,
                seed=p.seed,
            )
            for p in plans
        }
        self._plans = plans
        self._journal = scratch / "episodes.jsonl"
        self._restore()

    def missing(self) -> list[EpisodePlan]:
        """Plans without a result yet, in order."""
        return [p for p in self._plans if self._results[_key(p)].pending]

    def add(self, episode: Episode) -> None:
        """Pictures, then the journal, then the task's results.json, each one atomic enough: a
        line torn by a crash is ignored and its episode played again."""
        result = episode.result
        self._results[result.task, result.scenario] = result
        name = f"{result.scenario:06d}_{result.status}"
        self._picture(f"frames/{result.task}/{name}.png", episode.strip)
        self._picture(f"records/videos/{result.task}/{name}.webp", episode.animation)
        if not result.crashed:
            entry = {name: getattr(result, name) for name in _FIELDS}
            with self._journal.open("a", encoding="utf-8") as journal:
                journal.write(json.dumps(entry, sort_keys=True) + "\n")
        self._write([r for r in self._results.values() if r.task == result.task])

    def finish(self) -> list[EpisodeResult]:
        """Writes everything under `out`; returns the results in the order of the plans."""
        results = list(self._results.values())
        self._write(results)
        pictures = self._scratch / "pictures"
        if pictures.is_dir():
            shutil.copytree(pictures, self._out, dirs_exist_ok=True)
        return results

    @property
    def done(self) -> int:
        return sum(not r.pending for r in self._results.values())

    @property
    def success_rate(self) -> float:
        """Of what has finished so far; 0 while nothing has."""
        outcomes = [r.success for r in self._results.values() if r.success is not None]
        return sum(outcomes) / len(outcomes) if outcomes else 0.0

    def _restore(self) -> None:
        if not self._journal.is_file():
            return
        for line in self._journal.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
                key = entry["task"], entry["scenario"]
            except (ValueError, KeyError, TypeError):
                continue
            planned = self._results.get(key)
            if planned is not None and planned.seed == entry.get("seed"):
                self._results[key] = EpisodeResult(**{**asdict(planned), "pending": False, **entry})

    def _picture(self, name: str, data: bytes | None) -> None:
        if data is not None:
            path = self._scratch / "pictures" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def _write(self, results: Sequence[EpisodeResult]) -> None:
        write_results(self._out, "results", results, requested=self._requested, budget=self._budget)


def count_cells(results: Sequence[EpisodeResult]) -> dict[str, dict[str, int]]:
    """task → {"n", "successes", "crashed"}; n leaves crashes out."""
    cells: dict[str, dict[str, int]] = {}
    for result in results:
        cell = cells.setdefault(result.task, {"n": 0, "successes": 0, "crashed": 0})
        cell["n"] += result.success is not None
        cell["successes"] += bool(result.success)
        cell["crashed"] += result.crashed
    return cells


def episode_line(result: EpisodeResult) -> str:
    """A line of records/episodes.jsonl, as lineage reads it."""
    entry: dict[str, Any] = {
        "task": result.task,
        "scenario": result.scenario,
        "success": result.success,
        "steps": result.steps,
        "crash": result.crashed,
        "seed": result.seed,
    }
    return json.dumps(entry, sort_keys=True) + "\n"


def _key(plan: EpisodePlan) -> tuple[str, int]:
    return plan.scenario.task.name, plan.scenario.index
