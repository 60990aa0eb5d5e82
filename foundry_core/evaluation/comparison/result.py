"""What a comparison found, as objects and as comparison.json."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

from foundry_core.config.validation import read_as
from foundry_core.evaluation.score import Score

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


@dataclass(frozen=True, kw_only=True)
class PValue:
    """p_corrected: by Holm, within its family of tests."""

    p_value: float
    p_corrected: float


@dataclass(frozen=True, kw_only=True)
class Difference(PValue):
    """A label against the base, in all tasks and in each. difference: base's rate less its own."""

    difference: float
    decision: str
    tasks: Mapping[str, PValue]


@dataclass(frozen=True, kw_only=True)
class Seeds:
    """How far equal recipes with different seeds lie apart; None with one seed per variant.

    degrees: of freedom. deviation: standard deviation of a seed's success rate over all tasks,
        pooled over variants, within [low, high] (chi-square, 95 %).
    binomial: what it would be if seeds did not matter and only episodes were random.
    repeatable: two single seeds of ONE recipe differ by less than this in 95 % of cases.
    dispersion, design_effect: variance between seeds by the binomial one, as found and at least 1.
    replicates: variant → evaluation → score over all tasks.
    """

    degrees: int = 0
    deviation: float | None = None
    low: float | None = None
    high: float | None = None
    binomial: float | None = None
    repeatable: float | None = None
    dispersion: float | None = None
    design_effect: float = 1.0
    replicates: Mapping[str, Mapping[str, Score]] = field(default_factory=dict)

    @property
    def unit(self) -> str:
        """What is drawn at random, and so what the verdict speaks of: 'seeds' or 'episodes'."""
        return "seeds" if self.degrees else "episodes"

    def to_json(self) -> dict[str, Any]:
        """The fields, and `unit`."""
        return {**as_json(self), "unit": self.unit}


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
        """The content of comparison.json: all fields by name, a score as {n, successes, crashed,
        pending, rate, low, high}."""
        return dict(as_json(self))


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


def read_comparison(path: Path) -> Comparison:
    """From comparison.json. FoundryError for a file of another form."""
    found: Comparison = read_as(Comparison, path, "run its stage with --force")
    return found


def as_json(value: Any) -> Any:
    """Dataclasses and mappings as dicts, throughout; a score with what follows from it."""
    if isinstance(value, Score):
        return value.to_json()
    if is_dataclass(value):
        return {one.name: as_json(getattr(value, one.name)) for one in fields(value)}
    if isinstance(value, Mapping):
        return {key: as_json(one) for key, one in value.items()}
    return value
