"""Per-episode results in LBM Eval's own file form: written by us, read from anyone.

A tree is `[<set>/]<model>/<Task>/rollouts/<stamp>/results.json`. LBM Eval itself records a crash as
a failure with the traceback in `failure_message`; the reader undoes that, keeping count.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, StrictBool

from foundry_core.errors import FoundryError
from foundry_core.evaluation.results.base import (
    Budget,
    Index,
    Name,
    ResultFile,
    ResultFormat,
    Results,
    Seconds,
    collect,
    read_document,
)
from foundry_core.evaluation.score import EpisodeResult, score_of
from foundry_core.evaluation.task_names import pascal_case, snake_case
from foundry_core.files import walk, write_json

FIXED_STAMP = "1970-01-01T00-00-00"
"""Folder name of a rollout that must come out equal on every run; no clock enters an artifact."""

_TRACEBACK = "Traceback (most recent call last)"
_FILE = "results.json"
_TREE = f"[<set>/]<model>/<Task>/rollouts/<stamp>/{_FILE}"

_FORM = (
    "a results.json has `evaluations`, and as max_sample_size_per_model the number of episodes per "
    "task that were planned before the first one ran"
)


class _Entry(BaseModel):
    """An element of `evaluations`."""

    skill_type: Name
    scenario_index: Index
    is_success: StrictBool | None
    is_pending: bool = False
    total_time: Seconds | None = None
    failure_message: str | None = None


class _Progress(BaseModel):
    """What is read of the file that LBM Eval writes while it runs."""

    evaluations: list[_Entry]


class _Document(_Progress):
    """What is read of a results.json."""

    max_sample_size_per_model: Budget


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

    Raises FoundryError for what `collect` refuses and for files that are not of the form. A model
    is called `<set>/<model>` where the tree has several sets.
    """
    files = _find(root)
    if not files:
        raise FoundryError(f"no {_FILE} below {root}", f"expected {_TREE}")
    return collect("lbm", _read(root, files))


def read_progress(file: Path) -> list[EpisodeResult]:
    """Of a `results-<timestamp>.json`, which LBM Eval replaces after each episode. FoundryError for
    a file that is not of the form."""
    found: _Progress = read_document(_Progress, file, "LBM Eval's results have `evaluations`")
    return [_episode(entry) for entry in found.evaluations]


def _find(root: Path) -> list[Path]:
    names = (name for name, _ in walk(root)) if root.is_dir() else ()
    return sorted(root / name for name in names if f"/{name}".endswith(f"/{_FILE}"))


def _read(root: Path, files: Sequence[Path]) -> Iterator[ResultFile]:
    places = [_place(root, file) for file in files]
    several_sets = len({evaluation_set for evaluation_set, _ in places}) > 1
    for file, (evaluation_set, model) in zip(files, places, strict=True):
        document = read_document(_Document, file, _FORM)
        yield ResultFile(
            path=file,
            model=f"{evaluation_set}/{model}" if several_sets and evaluation_set else model,
            budget=document.max_sample_size_per_model,
            episodes=[_episode(entry) for entry in document.evaluations],
        )


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


RESULTS = ResultFormat(form=f"{_TREE} (LBM Eval)", find=_find, read=_read)
