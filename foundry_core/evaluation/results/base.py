"""Per-episode results of any evaluation harness, in one form: an open set of result formats.

A format is one module, of this package or of any installed distribution (entry points of group
`foundry.result_formats`), that defines `RESULTS`. Which one a folder has is found by looking. The
files are anybody's: everything that is taken from them is checked and bounded here or by a model.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from foundry_core.config.registry import Registry
from foundry_core.config.validation import read_as
from foundry_core.errors import FoundryError
from foundry_core.evaluation.facts import EvaluationFacts, ImportedFrom, several_benchmarks
from foundry_core.evaluation.score import EpisodeResult, Evaluation, Score, score_of

_MOST_BYTES = 64 * 1024 * 1024


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("a name has control characters")
    return text


Name = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_printable)]
Budget = Annotated[int, Field(ge=1, le=1_000_000, strict=True)]
Index = Annotated[int, Field(ge=0, lt=2**63)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True, kw_only=True)
class ResultFile:
    """A read file: episodes of one model. facts: what it says of how they were played."""

    path: Path
    model: str
    budget: int
    episodes: Sequence[EpisodeResult]
    facts: EvaluationFacts = field(default_factory=EvaluationFacts)


@dataclass(frozen=True, kw_only=True)
class Results:
    """What was read. budget: episodes per model and task, fixed before the first one. episodes:
    (model, task) → its episodes, by scenario. files and facts: by model."""

    format: str
    budget: int
    episodes: Mapping[tuple[str, str], Sequence[EpisodeResult]]
    files: Mapping[str, Sequence[Path]]
    facts: Mapping[str, EvaluationFacts]

    @property
    def models(self) -> list[str]:
        return sorted(self.files)

    def episodes_of(self, model: str) -> list[EpisodeResult]:
        """By task and scenario."""
        return [one for (of, _), some in self.episodes.items() if of == model for one in some]

    def scores(self) -> dict[str, dict[str, Score]]:
        """model → task → score."""
        found: dict[str, dict[str, Score]] = {}
        for (model, task), episodes in self.episodes.items():
            found.setdefault(model, {})[task] = score_of(episodes)
        return found

    def evaluations(self) -> dict[str, Evaluation]:
        """model → what was found of it."""
        return {model: Evaluation.of(self.episodes_of(model), self.budget) for model in self.models}


@dataclass(frozen=True, kw_only=True)
class ResultFormat:
    """form: what a folder of this format looks like, for messages. find: its files at or below a
    place, none where there are none. read: those files, in order; FoundryError for one that is not
    of the form."""

    form: str
    find: Callable[[Path], Sequence[Path]]
    read: Callable[[Path, Sequence[Path]], Iterator[ResultFile]]


RESULT_FORMATS: Registry[ResultFormat] = Registry(
    group="foundry.result_formats",
    package=__package__,
    attribute="RESULTS",
    noun="result format",
    dashes=True,
)


def read_results(root: Path) -> Results:
    """Reads the results at or below a place, in whichever format they are.

    FoundryError where there are none, or of two formats; for a file of another form; and for what
    `collect` refuses.
    """
    formats = {name: RESULT_FORMATS.get(name) for name in RESULT_FORMATS.names()}
    found = {name: files for name, one in formats.items() if (files := one.find(root))}
    if not found:
        forms = ", or ".join(one.form for one in formats.values())
        raise FoundryError(f"no results at {root}", f"expected {forms}")
    if len(found) > 1:
        listing = ", ".join(f"{files[0]} ({name})" for name, files in found.items())
        raise FoundryError(f"{root} has results of several formats: {listing}", "name one of them")
    ((name, files),) = found.items()
    return collect(name, formats[name].read(root, files))


def collect(format_name: str, files: Iterable[ResultFile]) -> Results:
    """Results of all files together.

    FoundryError for conflicting budgets, a (task, scenario) in two files of one model or twice in
    one, and more completed episodes than the budget.
    """
    budgets: dict[int, Path] = {}
    episodes: dict[tuple[str, str], dict[int, tuple[EpisodeResult, Path]]] = {}
    by_model: dict[str, list[ResultFile]] = {}
    for file in files:
        budgets.setdefault(file.budget, file.path)
        by_model.setdefault(file.model, []).append(file)
        for episode in file.episodes:
            of_task = episodes.setdefault((file.model, episode.task), {})
            if episode.scenario in of_task:
                other = of_task[episode.scenario][1]
                raise FoundryError(
                    f"{file.model}: {episode.task} scenario {episode.scenario} is in {other} and "
                    f"{file.path}",
                    "remove one of the two: an episode counts once",
                )
            of_task[episode.scenario] = (episode, file.path)
    if len(budgets) > 1:
        listing = "; ".join(f"{budget} in {file}" for budget, file in sorted(budgets.items()))
        raise FoundryError(
            f"conflicting budgets of episodes per task: {listing}",
            "a comparison needs one budget, fixed before the first episode",
        )
    (budget,) = budgets
    found = Results(
        format=format_name,
        budget=budget,
        episodes={
            key: tuple(of_task[scenario][0] for scenario in sorted(of_task))
            for key, of_task in episodes.items()
        },
        files={model: tuple(file.path for file in some) for model, some in by_model.items()},
        facts={},
    )
    _check_budget(found)
    facts = {model: _facts(found, model, some) for model, some in by_model.items()}
    return replace(found, facts=facts)


def _check_budget(results: Results) -> None:
    for (model, task), several in results.episodes.items():
        completed = score_of(several).n
        if completed > results.budget:
            raise FoundryError(
                f"{model} on {task}: {completed} completed episodes, the budget is "
                f"{results.budget}",
                "episodes beyond the budget cannot enter the test; remove them or plan more",
            )


def _facts(results: Results, model: str, files: Sequence[ResultFile]) -> EvaluationFacts:
    """What all of a model's files say; a setting in which they differ is left out."""
    said = [file.facts for file in files]
    episodes = results.episodes_of(model)
    return replace(
        said[0],
        benchmark=several_benchmarks({one.benchmark for one in said if one.benchmark}),
        options=_agreed([one.options for one in said]),
        packages=_agreed([one.packages for one in said]),
        max_steps={task: steps for one in said for task, steps in one.max_steps.items()},
        hz=said[0].hz if len({one.hz for one in said}) == 1 else None,
        first_scenario=min((one.scenario for one in episodes), default=None),
        episodes_per_task=results.budget,
        imported=ImportedFrom(format=results.format, model=model),
    )


def _agreed(mappings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first, *others = mappings
    return {
        key: value
        for key, value in first.items()
        if all(key in other and other[key] == value for other in others)
    }


def read_document(kind: Any, path: Path, form: str) -> Any:
    """A JSON file of anybody's as `kind`. form: the hint of what it should be. FoundryError for one
    that is too large, too deep, no JSON or of another form."""
    check_size(path)
    try:
        return read_as(kind, path, form)
    except RecursionError:
        raise FoundryError(f"{path} is nested too deeply", form) from None
    except OSError as error:
        raise FoundryError(f"{path} cannot be read ({error.strerror})", "check who may") from None


def check_size(path: Path) -> None:
    """FoundryError for a file larger than any results are."""
    if path.stat().st_size > _MOST_BYTES:
        raise FoundryError(
            f"{path} has more than {_MOST_BYTES >> 20} MB", "a file of results is far smaller"
        )
