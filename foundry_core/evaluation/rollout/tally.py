"""Episodes as they finish: journalled for the next attempt, shown in the results tree, counted.

The journal lies in a stage's scratch folder, which survives a failed attempt of the same key: an
evaluation of hours that is killed goes on with the episodes that are missing. Crashed episodes
are not journalled; the next attempt tries them again.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from foundry_core.evaluation.results.lbm import write_results
from foundry_core.evaluation.rollout.episodes import EpisodePlan, Rollout
from foundry_core.evaluation.score import EpisodeResult, Score, score_of
from foundry_core.files import json_line

_FIELDS = ("task", "scenario", "success", "seconds", "steps", "seed")


class Tally:
    """All planned episodes of one evaluation, pending until `add`ed."""

    def __init__(
        self, out: Path, scratch: Path, plans: Sequence[EpisodePlan], *, requested: int, budget: int
    ) -> None:
        self._out, self._scratch = out, scratch
        self._requested, self._budget = requested, budget
        self._results = {p.key: p.result(success=None, pending=True) for p in plans}
        self._plans = plans
        self._journal = scratch / "episodes.jsonl"
        self._restore()

    def missing(self) -> list[EpisodePlan]:
        """Plans without a result yet, in order."""
        return [p for p in self._plans if self._results[p.key].pending]

    def add(self, rollout: Rollout) -> None:
        """Pictures, then the journal, then the task's results.json, each one atomic enough: a
        line torn by a crash is ignored and its episode played again."""
        result = rollout.result
        self._results[result.key] = result
        name = f"{result.scenario:06d}_{result.status}"
        self._picture(f"frames/{result.task}/{name}.png", rollout.filmstrip)
        self._picture(f"records/videos/{result.task}/{name}.mp4", rollout.video)
        self._picture(f"records/tracks/{result.task}/{name}.npz", rollout.track)
        if not result.crashed:
            entry = {name: getattr(result, name) for name in _FIELDS}
            with self._journal.open("a", encoding="utf-8") as journal:
                journal.write(json_line(entry))
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
    def score(self) -> Score:
        """Of all tasks, so far."""
        return score_of(list(self._results.values()))

    def _restore(self) -> None:
        if not self._journal.is_file():
            return
        lines = self._journal.read_bytes()
        if not lines.endswith(b"\n"):  # torn by a crash: the next line must not join it
            with self._journal.open("ab") as journal:
                journal.write(b"\n")
        for line in lines.splitlines():
            try:
                entry = json.loads(line)
                fields = {name: entry[name] for name in _FIELDS}
            except (ValueError, KeyError, TypeError):
                continue
            key = fields["task"], fields["scenario"]
            planned = self._results.get(key)
            if planned is not None and planned.seed == fields["seed"]:
                self._results[key] = replace(planned, pending=False, **fields)

    def _picture(self, name: str, data: bytes | None) -> None:
        if data is not None:
            path = self._scratch / "pictures" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def _write(self, results: Sequence[EpisodeResult]) -> None:
        write_results(self._out, "results", results, requested=self._requested, budget=self._budget)
