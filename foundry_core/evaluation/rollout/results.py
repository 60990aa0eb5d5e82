"""Per-episode results in LBM Eval's own file form: written by us, read from anyone.

A tree is `[<set>/]<model>/<Task>/rollouts/<stamp>/results.json`. Every episode is one of four
things: success, failure, pending (not run yet) or crashed (a fault of the simulator or of the
machine). Only the first two say anything about the policy, so only they enter a rate; LBM Eval
itself records a crash as a failure with the traceback in `failure_message`, and the reader undoes
that, keeping count.
"""

import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from foundry_core.errors import FoundryError

FIXED_STAMP = "1970-01-01T00-00-00"
"""Folder name of a rollout that must come out equal on every run; no clock enters an artifact."""

LBM_UNSEEN_TASKS = (
    "BimanualPlaceAvocadoFromBowlIntoBin",
    "BimanualPutSpatulaOnPlateFromUtensilCrock",
    "PutMugInCenterOfTable",
)
"""Left out of the published means: no training data had them."""

_TRACEBACK = "Traceback (most recent call last)"
_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


@dataclass(frozen=True, kw_only=True)
class EpisodeResult:
    """One episode of one policy.

    success: None while pending and after a crash. seconds: simulated time. recorded_as_failure:
    the file called this crash a failure of the policy.
    """

    task: str
    scenario: int
    success: bool | None
    pending: bool = False
    seconds: float = 0.0
    steps: int | None = None
    failure_message: str | None = None
    seed: int | None = None
    recorded_as_failure: bool = False

    def __post_init__(self) -> None:
        if self.pending and self.success is not None:
            raise FoundryError(
                f"{self.task}, scenario {self.scenario}: pending and success={self.success}",
                "a pending episode has no outcome yet",
            )

    @property
    def crashed(self) -> bool:
        return self.success is None and not self.pending

    @property
    def status(self) -> str:
        if self.pending:
            return "pending"
        if self.success is None:
            return "crashed"
        return "success" if self.success else "failure"

    @property
    def reason(self) -> str:
        """Last line of the failure message: the exception, without its traceback."""
        lines = (self.failure_message or "").strip().splitlines()
        return lines[-1] if lines else ""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """All episodes of one model on one task, by scenario."""

    model: str
    task: str
    episodes: tuple[EpisodeResult, ...]

    @property
    def outcomes(self) -> dict[int, bool]:
        """Scenario → success, of the episodes that say something about the policy."""
        return {e.scenario: e.success for e in self.episodes if e.success is not None}

    @property
    def n(self) -> int:
        return len(self.outcomes)

    @property
    def successes(self) -> int:
        return sum(self.outcomes.values())

    @property
    def rate(self) -> float:
        if not self.n:
            raise FoundryError(f"{self.model} on {self.task}: no completed episode, so no rate")
        return self.successes / self.n

    @property
    def recorded_rate(self) -> float:
        """The rate LBM Eval would print: crashes it recorded as failures count as failures."""
        n = self.n + sum(e.recorded_as_failure for e in self.episodes)
        return self.successes / n if n else self.rate

    @property
    def crashed(self) -> int:
        return sum(e.crashed for e in self.episodes)

    @property
    def pending(self) -> int:
        return sum(e.pending for e in self.episodes)


@dataclass(frozen=True, kw_only=True)
class Results:
    """A read tree. `budget` is the episode count per model and task fixed in advance."""

    budget: int
    cells: Mapping[tuple[str, str], Cell]

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(sorted({model for model, _ in self.cells}))

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(sorted({task for _, task in self.cells}))

    def crashes(self) -> list[tuple[str, EpisodeResult]]:
        """(model, episode) of every crash, in the order of models, tasks and scenarios."""
        ordered = (self.cells[key] for key in sorted(self.cells))
        return [(cell.model, e) for cell in ordered for e in cell.episodes if e.crashed]

    def mean(
        self, model: str, tasks: Sequence[str] | None = None, *, as_recorded: bool = False
    ) -> float:
        """Mean of the task rates (each task weighs the same), over `tasks` or all of the model's.

        as_recorded: with crashes counted as the file counted them; reproduces published means.
        """
        chosen = tasks if tasks is not None else [t for m, t in self.cells if m == model]
        cells = [self._cell(model, task) for task in chosen]
        if not cells:
            raise FoundryError(f"no tasks to average for {model!r}")
        return sum(c.recorded_rate if as_recorded else c.rate for c in cells) / len(cells)

    def relabelled(self, label: str) -> "Results":
        """The same episodes under another model name; the tree must hold one model."""
        if len(self.models) != 1:
            names = ", ".join(self.models)
            raise FoundryError(f"{label!r} must name one model, the tree holds several: {names}")
        cells = {(label, task): replace(c, model=label) for (_, task), c in self.cells.items()}
        return Results(budget=self.budget, cells=cells)

    def _cell(self, model: str, task: str) -> Cell:
        if (model, task) not in self.cells:
            raise FoundryError(f"no results of {model!r} on {task!r}")
        return self.cells[model, task]


def pascal_case(name: str) -> str:
    """put_mug_on_saucer, pick-place-v3 → PutMugOnSaucer, PickPlaceV3. Idempotent."""
    return "".join(word[0].upper() + word[1:] for word in re.split(r"[_\-\s]+", name) if word)


def snake_case(name: str) -> str:
    """PutMugOnSaucer → put_mug_on_saucer."""
    return "_".join(_WORD_START.split(pascal_case(name))).lower()


def merge(parts: Iterable[Results]) -> Results:
    """One Results over several trees with distinct models and one budget."""
    parts = list(parts)
    budgets = sorted({part.budget for part in parts})
    if len(budgets) != 1:
        raise FoundryError(
            f"evaluations with different budgets cannot be compared: {budgets} episodes per task",
            "evaluate all of them with the same number of episodes",
        )
    cells: dict[tuple[str, str], Cell] = {}
    for part in parts:
        twice = sorted(cells.keys() & part.cells.keys())
        if twice:
            raise FoundryError(f"results of {twice[0][0]!r} on {twice[0][1]!r} are given twice")
        cells.update(part.cells)
    return Results(budget=budgets[0], cells=cells)


def write_results(
    tree: Path,
    model: str,
    episodes: Iterable[EpisodeResult],
    *,
    requested: int,
    budget: int,
    stamp: str = FIXED_STAMP,
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
        document = _document(ordered, requested=requested, budget=budget)
        path = Path(tree) / model / task / "rollouts" / stamp / "results.json"
        replace_json(path, document)
        paths.append(path)
    return paths


def _document(episodes: Sequence[EpisodeResult], *, requested: int, budget: int) -> dict:
    counted = [e for e in episodes if e.success is not None]
    successes = sum(bool(e.success) for e in counted)
    return {
        "max_sample_size_per_model": budget,
        "num_processes": 1,  # what LBM Eval calls it; the real number must not change the bytes
        "elapsed_time": round(sum(e.seconds for e in episodes if not e.pending), 6),
        "num_requested_evaluations": requested,
        "num_evaluated": len(counted),
        "num_success": successes,
        "success_rate": successes / len(counted) if counted else None,
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


def replace_json(path: Path, document: object) -> None:
    """Writes canonical JSON beside `path` and renames: a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(json.dumps(document, sort_keys=True, indent=1, allow_nan=False) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def read_tree(path: Path) -> Results:
    """Reads every results.json below `path`: a tree, one evaluation set, or one model's folder.

    Raises FoundryError for a missing or conflicting budget, a (task, scenario) found in two files
    of one model, more completed episodes than the budget, and files that are not of the form.
    A model is called `<set>/<model>` where the tree has several sets.
    """
    root = Path(path)
    files = sorted(root.rglob("results.json"))
    if not files:
        raise FoundryError(
            f"no results.json below {root}",
            "expected [<set>/]<model>/<Task>/rollouts/<stamp>/results.json",
        )
    places = [_place(root, file) for file in files]
    several_sets = len({evaluation_set for evaluation_set, _ in places}) > 1
    budgets: dict[int, Path] = {}
    found: dict[tuple[str, str], dict[int, tuple[EpisodeResult, Path]]] = {}
    for file, (evaluation_set, model) in zip(files, places, strict=True):
        label = f"{evaluation_set}/{model}" if several_sets and evaluation_set else model
        document = _load(file)
        budgets.setdefault(_budget(document, file), file)
        for episode in _episodes(document, file):
            cell = found.setdefault((label, episode.task), {})
            if episode.scenario in cell:
                other = cell[episode.scenario][1]
                raise FoundryError(
                    f"{label}: {episode.task} scenario {episode.scenario} is in {other} and {file}",
                    "remove one of the two rollouts: an episode counts once",
                )
            cell[episode.scenario] = (episode, file)
    if len(budgets) > 1:
        listing = "; ".join(f"{budget} in {file}" for budget, file in sorted(budgets.items()))
        raise FoundryError(
            f"conflicting budgets max_sample_size_per_model: {listing}",
            "a comparison needs one budget, fixed before the first episode",
        )
    (budget,) = budgets
    cells = {key: _cell(key, cell, budget) for key, cell in found.items()}
    return Results(budget=budget, cells=cells)


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


def _load(file: Path) -> dict:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise FoundryError(f"{file} is not JSON: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("evaluations"), list):
        raise FoundryError(f"{file}: expected an object with a list `evaluations`")
    return document


def _budget(document: dict, file: Path) -> int:
    budget = document.get("max_sample_size_per_model")
    if not isinstance(budget, int) or isinstance(budget, bool) or budget < 1:
        raise FoundryError(
            f"{file}: max_sample_size_per_model is {budget!r}, must be a count fixed in advance",
            "add the number of episodes per task that were planned before the first one ran",
        )
    return budget


def _episodes(document: dict, file: Path) -> list[EpisodeResult]:
    return [_episode(entry, i, file) for i, entry in enumerate(document["evaluations"])]


def _episode(entry: dict, index: int, file: Path) -> EpisodeResult:
    try:
        task = pascal_case(entry["skill_type"])
        scenario, success = int(entry["scenario_index"]), entry["is_success"]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise FoundryError(f"{file}: evaluations[{index}] lacks or garbles {error}") from error
    if success is not None and not isinstance(success, bool):
        raise FoundryError(f"{file}: evaluations[{index}].is_success is {success!r}, not a truth")
    pending = bool(entry.get("is_pending", False))
    message = entry.get("failure_message")
    fault = message is not None and _TRACEBACK in message
    return EpisodeResult(
        task=task,
        scenario=scenario,
        # A fault blanks the outcome whichever it was: dropping only failures would flatter.
        success=None if fault or pending else success,
        pending=pending and not fault,
        seconds=float(entry.get("total_time") or 0.0),
        failure_message=message,
        recorded_as_failure=fault and success is False,
    )


def _cell(
    key: tuple[str, str], found: Mapping[int, tuple[EpisodeResult, Path]], budget: int
) -> Cell:
    model, task = key
    cell = Cell(model=model, task=task, episodes=tuple(found[s][0] for s in sorted(found)))
    if cell.n > budget:
        raise FoundryError(
            f"{model} on {task}: {cell.n} completed episodes, the budget is {budget}",
            "episodes beyond the budget cannot enter the test; remove them or plan a larger one",
        )
    return cell
