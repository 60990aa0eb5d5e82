"""Per-episode results in LBM Eval's own file form: written by us, read from anyone.

A tree is `[<set>/]<model>/<Task>/rollouts/<stamp>/results.json`. LBM Eval itself records a crash as
a failure with the traceback in `failure_message`; the reader undoes that, keeping count.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, StrictBool

from foundry_core.config.validation import read_as
from foundry_core.errors import FoundryError
from foundry_core.evaluation.score import EpisodeResult, Evaluation, Score, score_of
from foundry_core.files import walk, write_json

FIXED_STAMP = "1970-01-01T00-00-00"
"""Folder name of a rollout that must come out equal on every run; no clock enters an artifact."""

_TRACEBACK = "Traceback (most recent call last)"
_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_FILE = "results.json"

_FORM = (
    "a results.json has `evaluations`, and as max_sample_size_per_model the number of episodes per "
    "task that were planned before the first one ran"
)


class _Entry(BaseModel):
    """An element of `evaluations`."""

    skill_type: str = Field(min_length=1)
    scenario_index: int
    is_success: StrictBool | None
    is_pending: bool = False
    total_time: float | None = None
    failure_message: str | None = None


class _Document(BaseModel):
    """What is read of a results.json."""

    max_sample_size_per_model: int = Field(ge=1, strict=True)
    evaluations: list[_Entry]


@dataclass(frozen=True, kw_only=True)
class Results:
    """A read tree. budget: episodes per model and task, fixed before the first one. episodes:
    (model, task) → its episodes, by scenario."""

    budget: int
    episodes: Mapping[tuple[str, str], Sequence[EpisodeResult]]

    @property
    def models(self) -> list[str]:
        return sorted({model for model, _ in self.episodes})

    def scores(self) -> dict[str, dict[str, Score]]:
        """model → task → score."""
        found: dict[str, dict[str, Score]] = {}
        for (model, task), episodes in self.episodes.items():
            found.setdefault(model, {})[task] = score_of(episodes)
        return found

    def evaluations(self) -> dict[str, Evaluation]:
        """model → what was found of it."""
        return {
            model: Evaluation.of(
                (one for (of, _), some in self.episodes.items() if of == model for one in some),
                self.budget,
            )
            for model in self.models
        }


def pascal_case(name: str) -> str:
    """put_mug_on_saucer, pick-place-v3 → PutMugOnSaucer, PickPlaceV3. Idempotent."""
    return "".join(word[0].upper() + word[1:] for word in re.split(r"[_\-\s]+", name) if word)


def snake_case(name: str) -> str:
    """PutMugOnSaucer → put_mug_on_saucer."""
    return "_".join(_WORD_START.split(pascal_case(name))).lower()


def write_results(
    tree: Path,
    model: str,
    episodes: Iterable[EpisodeResult],
    *,
    requested: int,
    budget: int,
) -> list[Path]:
    """Writes one results.json per task under `<tree>/<model>`; returns the paths.

    requested, budget: episodes per task, of this run and at most ever. The bytes depend only on
    the arguments (episodes are sorted, times are simulated), each file is replaced atomically, so
    it may be called after every episode.
    """
    if requested > budget:
        raise FoundryError(
            f"{requested} episodes requested per task, the budget is {budget}",
            "raise the budget before the first episode, not after",
        )
    by_task: dict[str, dict[int, EpisodeResult]] = {}
    for episode in episodes:
        of_task = by_task.setdefault(pascal_case(episode.task), {})
        if episode.scenario in of_task:
            raise FoundryError(f"{episode.task}: scenario {episode.scenario} is there twice")
        of_task[episode.scenario] = episode
    paths = []
    for task, of_task in sorted(by_task.items()):
        ordered = [of_task[scenario] for scenario in sorted(of_task)]
        path = tree / model / task / "rollouts" / FIXED_STAMP / _FILE
        document = _document(ordered, requested=requested, budget=budget)
        write_json(path, document, durable=False)
        paths.append(path)
    return paths


def _document(episodes: Sequence[EpisodeResult], *, requested: int, budget: int) -> dict[str, Any]:
    score = score_of(episodes)
    return {
        "max_sample_size_per_model": budget,
        "num_processes": 1,  # what LBM Eval calls it; the real number must not change the bytes
        "elapsed_time": round(sum(e.seconds for e in episodes if not e.pending), 6),
        "num_requested_evaluations": requested,
        "num_evaluated": score.n,
        "num_success": score.successes,
        "success_rate": score.rate,
        "evaluations": [
            {
                "skill_type": snake_case(e.task),
                "scenario_index": e.scenario,
                "is_pending": e.pending,
                "total_time": round(e.seconds, 6),
                "is_success": e.success,
                "failure_message": e.failure_message,
            }
            for e in episodes
        ],
    }


def read_tree(root: Path) -> Results:
    """Reads every results.json below `root`: a tree, one evaluation set, or one model's folder.

    Raises FoundryError for a missing or conflicting budget, a (task, scenario) found in two files
    of one model, more completed episodes than the budget, and files that are not of the form.
    A model is called `<set>/<model>` where the tree has several sets.
    """
    files = _result_files(root)
    places = [_place(root, file) for file in files]
    several_sets = len({evaluation_set for evaluation_set, _ in places}) > 1
    budgets: dict[int, Path] = {}
    found: dict[tuple[str, str], dict[int, tuple[EpisodeResult, Path]]] = {}
    for file, (evaluation_set, model) in zip(files, places, strict=True):
        label = f"{evaluation_set}/{model}" if several_sets and evaluation_set else model
        document = read_as(_Document, file, _FORM)
        budgets.setdefault(document.max_sample_size_per_model, file)
        for episode in map(_episode, document.evaluations):
            of_task = found.setdefault((label, episode.task), {})
            if episode.scenario in of_task:
                other = of_task[episode.scenario][1]
                raise FoundryError(
                    f"{label}: {episode.task} scenario {episode.scenario} is in {other} and {file}",
                    "remove one of the two rollouts: an episode counts once",
                )
            of_task[episode.scenario] = (episode, file)
    if len(budgets) > 1:
        listing = "; ".join(f"{budget} in {file}" for budget, file in sorted(budgets.items()))
        raise FoundryError(
            f"conflicting budgets max_sample_size_per_model: {listing}",
            "a comparison needs one budget, fixed before the first episode",
        )
    (budget,) = budgets
    episodes = {
        key: tuple(of_task[scenario][0] for scenario in sorted(of_task))
        for key, of_task in found.items()
    }
    for (model, task), several in episodes.items():
        completed = score_of(several).n
        if completed > budget:
            raise FoundryError(
                f"{model} on {task}: {completed} completed episodes, the budget is {budget}",
                "episodes beyond the budget cannot enter the test; remove them or plan more",
            )
    return Results(budget=budget, episodes=episodes)


def _result_files(root: Path) -> list[Path]:
    names = (name for name, _ in walk(root)) if root.is_dir() else ()
    files = sorted(root / name for name in names if f"/{name}".endswith(f"/{_FILE}"))
    if not files:
        raise FoundryError(
            f"no {_FILE} below {root}", f"expected [<set>/]<model>/<Task>/rollouts/<stamp>/{_FILE}"
        )
    return files


def _place(root: Path, file: Path) -> tuple[str, str]:
    """(set, model) of a results file from its folders."""
    parts = (root.resolve() / file.relative_to(root)).parts
    inside = len(file.relative_to(root).parts)
    if len(parts) < 6 or parts[-3] != "rollouts":
        raise FoundryError(
            f"{file} does not lie in <model>/<Task>/rollouts/<stamp>/",
            "move it there; the folders name the model",
        )
    return "/".join(parts[len(parts) - inside : -5]), parts[-5]


def _episode(entry: _Entry) -> EpisodeResult:
    fault = entry.failure_message is not None and _TRACEBACK in entry.failure_message
    return EpisodeResult(
        task=pascal_case(entry.skill_type),
        scenario=entry.scenario_index,
        # A fault blanks the outcome whichever it was: dropping only failures would flatter.
        success=None if fault or entry.is_pending else entry.is_success,
        pending=entry.is_pending and not fault,
        seconds=entry.total_time or 0.0,
        failure_message=entry.failure_message,
        recorded_as_failure=fault and entry.is_success is False,
    )
