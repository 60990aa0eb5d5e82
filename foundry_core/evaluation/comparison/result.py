"""What a comparison found, as objects and as comparison.json."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from foundry_core.errors import FoundryError
from foundry_core.evaluation.score import Score
from foundry_core.files import read_json

FILE = "comparison.json"


@dataclass(frozen=True, kw_only=True)
class ComparedScore:
    """counted: what happened. tested: what the interval and the tests see; fewer episodes at the
    same rate where equal recipes disagree by their seed (the design effect), else the same."""

    counted: Score
    tested: Score

    @property
    def interval(self) -> tuple[float, float]:
        return self.tested.interval

    def __add__(self, other: "ComparedScore") -> "ComparedScore":
        return ComparedScore(
            counted=self.counted + other.counted, tested=self.tested + other.tested
        )

    def to_json(self) -> dict[str, Any]:
        low, high = self.interval
        tested = {"n": self.tested.n, "successes": self.tested.successes}
        return self.counted.to_json() | {"low": low, "high": high, "tested": tested}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "ComparedScore":
        counted = Score.from_json(data)
        return cls(counted=counted, tested=Score.from_json({**data, **data["tested"]}))


@dataclass(frozen=True, kw_only=True)
class PValue:
    """corrected: by Holm, within its family of tests."""

    p_value: float
    p_corrected: float


@dataclass(frozen=True, kw_only=True)
class Difference(PValue):
    """A label against the base, in all tasks and in each. difference: base's rate less its own."""

    difference: float
    decision: str
    tasks: Mapping[str, PValue]


@dataclass(frozen=True, kw_only=True)
class SeedSpread:
    """How far equal recipes with different seeds lie apart; None with one seed per variant.

    degrees: of freedom. deviation: standard deviation of a seed's success rate over all tasks,
        pooled over variants, within [low, high] (chi-square, 95 %).
    binomial: what it would be if seeds did not matter and only episodes were random.
    repeatable: two single seeds of ONE recipe differ by less than this in 95 % of cases.
    dispersion, design_effect: variance between seeds by the binomial one, as found and at least 1.
    """

    degrees: int = 0
    deviation: float | None = None
    low: float | None = None
    high: float | None = None
    binomial: float | None = None
    repeatable: float | None = None
    dispersion: float | None = None
    design_effect: float = 1.0


@dataclass(frozen=True, kw_only=True)
class SeedScore:
    """One evaluation of a variant, over all tasks."""

    evaluation: str
    score: Score


@dataclass(frozen=True, kw_only=True)
class Seeds:
    """replicates: variant → its evaluations."""

    spread: SeedSpread
    replicates: Mapping[str, Sequence[SeedScore]]

    @property
    def unit(self) -> str:
        """What is drawn at random, and so what the verdict speaks of: 'seeds' or 'episodes'."""
        return "seeds" if self.spread.degrees else "episodes"

    def to_json(self) -> dict[str, Any]:
        replicates = {
            name: [{"evaluation": one.evaluation, **one.score.to_json()} for one in several]
            for name, several in self.replicates.items()
        }
        return _values(self.spread) | {"unit": self.unit, "replicates": replicates}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Seeds":
        replicates = {
            name: [
                SeedScore(evaluation=one["evaluation"], score=Score.from_json(one))
                for one in several
            ]
            for name, several in data["replicates"].items()
        }
        spread = SeedSpread(**{field.name: data[field.name] for field in fields(SeedSpread)})
        return cls(spread=spread, replicates=replicates)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """labels: the base first. tasks: those that all labels ran; left_out: the others. scores:
    task → label → score; pooled: over all tasks. letters: two labels share one unless an exact test
    separates them. seeds: of an ablation's verdict."""

    base: str
    alpha: float
    labels: Sequence[str]
    tasks: Sequence[str]
    left_out: Sequence[str]
    scores: Mapping[str, Mapping[str, ComparedScore]]
    pooled: Mapping[str, ComparedScore]
    against_base: Mapping[str, Difference]
    letters: Mapping[str, str]
    seeds: Seeds | None = None

    def to_json(self) -> dict[str, Any]:
        """The content of comparison.json: the fields by name. A score is {n, successes, crashed,
        pending, rate, low, high, tested: {n, successes}}; a difference {difference, p_value,
        p_corrected, decision, tasks: {task: {p_value, p_corrected}}}; seeds, where there are any,
        the spread's fields, `unit` and `replicates`: {variant: [{evaluation, <score>}]}."""
        document: dict[str, Any] = {
            "base": self.base,
            "alpha": self.alpha,
            "labels": list(self.labels),
            "tasks": list(self.tasks),
            "left_out": list(self.left_out),
            "scores": {
                task: {label: score.to_json() for label, score in by_label.items()}
                for task, by_label in self.scores.items()
            },
            "pooled": {label: score.to_json() for label, score in self.pooled.items()},
            "against_base": {
                label: _values(found)
                | {"tasks": {task: _values(p) for task, p in found.tasks.items()}}
                for label, found in self.against_base.items()
            },
            "letters": dict(self.letters),
        }
        return document | ({"seeds": self.seeds.to_json()} if self.seeds else {})

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Comparison":
        """Raises KeyError or TypeError for another form. Orders are those of labels and tasks:
        a file's keys are sorted."""
        labels, tasks = data["labels"], data["tasks"]
        differences = data["against_base"]
        return cls(
            base=data["base"],
            alpha=data["alpha"],
            labels=labels,
            tasks=tasks,
            left_out=data["left_out"],
            scores={
                task: {one: ComparedScore.from_json(data["scores"][task][one]) for one in labels}
                for task in tasks
            },
            pooled={one: ComparedScore.from_json(data["pooled"][one]) for one in labels},
            against_base={one: _difference(differences[one], tasks) for one in labels[1:]},
            letters={one: data["letters"][one] for one in labels},
            seeds=Seeds.from_json(data["seeds"]) if "seeds" in data else None,
        )


@dataclass(frozen=True, kw_only=True)
class Effect:
    """A variant's success and one setting that it changes; the base has no path. The row that the
    lineage keeps of an ablation."""

    variant: str
    path: str | None = None
    old: Any = None
    new: Any = None
    success: float | None = None
    n: int = 0
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    decision: str = "no verdict"
    letters: str = ""

    def to_json(self) -> dict[str, Any]:
        return _values(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Effect":
        """From a row that may have more fields."""
        return cls(**{field.name: data[field.name] for field in fields(cls)})


def read_comparison(path: Path) -> Comparison:
    """From comparison.json. FoundryError for a file of another form."""
    try:
        return Comparison.from_json(read_json(path))
    except (KeyError, TypeError, FoundryError) as error:
        raise FoundryError(
            f"{path} is of another form: {error}", "run its stage with --force"
        ) from None


def _difference(data: Mapping[str, Any], tasks: Sequence[str]) -> Difference:
    return Difference(**{**data, "tasks": {task: PValue(**data["tasks"][task]) for task in tasks}})


def _values(row: Any) -> dict[str, Any]:
    return {field.name: getattr(row, field.name) for field in fields(row)}
