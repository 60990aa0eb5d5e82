"""What a comparison found, as objects and as comparison.json."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

from foundry_core.config.validation import read_as
from foundry_core.evaluation.design import Family, Rule
from foundry_core.evaluation.score import Score

FILE = "comparison.json"
Basis = Literal["none", "provisional", "recipe"]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """`variant` held against `base`, two labels of the table.

    difference: mean over the common tasks of the variant's success rate less the base's, with an
    approximate 95 % interval [low, high]: the test decides, not the interval.
    p_value, p_corrected: exact, and by Holm within the table's family; None where the sequential
    design was asked instead, or nothing can be said. p_episodes, p_seeds: its parts.
    decision: "better", "worse", "not separated", "undecided" (sequential: go on) or "no verdict".
    basis: what a decision speaks of: "none" these trained policies, else the recipes.
    detectable: the smallest difference that this much data separates with 80 % power.
    """

    variant: str
    base: str
    difference: float
    low: float
    high: float
    decision: str
    basis: Basis
    test: str
    p_value: float | None = None
    p_corrected: float | None = None
    p_episodes: float | None = None
    p_seeds: float | None = None
    pairs: int = 0
    discordant: int = 0
    unpaired: int = 0
    detectable: float | None = None
    note: str = ""

    @property
    def separated(self) -> bool:
        return self.decision in ("better", "worse")


@dataclass(frozen=True, kw_only=True)
class Overall:
    """A label over the common tasks. counted: all episodes together. rate: the mean of its tasks'
    rates, which is what is compared; seeds: that of each seed's evaluation, by label."""

    counted: Score
    rate: float | None
    seeds: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Sequential:
    """How a table was judged that may be looked at before its end. rounds: the budget, one scenario
    of every task each, over which `looks` are spread. played: label → complete rounds. stopped:
    label → look after which it needed no more. episodes: played by all labels; saved: not played
    by those that stopped."""

    spending: Rule
    looks: int
    rounds: int
    played: Mapping[str, int]
    stopped: Mapping[str, int]
    episodes: int
    saved: int


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """labels: the base first, if there is one. tasks: those that all labels ran, which alone are
    compared; missing: other tasks, with the labels that lack them. scores: task → label → score, of
    every task. family: which pairs were tested, and corrected together: every label against the
    base, or all pairs (best: at levels that keep only the best safe); size: how many that were as
    it was started. by_task: task → label → p against the base, Holm over labels and tasks.
    letters: two labels share one unless their pair is separated; pairs that were not tested share
    one too. deviation: standard deviation of rates between seeds, pooled over labels, with a 95 %
    interval, where there are several. sequential: where the evaluations state a design, which then
    decides instead of p-values."""

    base: str | None
    alpha: float
    family: Family
    size: int
    labels: Sequence[str]
    tasks: Sequence[str]
    missing: Mapping[str, Sequence[str]]
    scores: Mapping[str, Mapping[str, Score]]
    overall: Mapping[str, Overall]
    differences: Sequence[Difference]
    by_task: Mapping[str, Mapping[str, float]]
    letters: Mapping[str, str]
    deviation: tuple[float, float, float] | None = None
    sequential: Sequential | None = None

    def against_base(self, label: str) -> Difference | None:
        """The difference of a label and the base; None for the base."""
        for one in self.differences:
            if (one.variant, one.base) == (label, self.base):
                return one
        return None

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
    if isinstance(value, list | tuple):
        return [as_json(one) for one in value]
    return value
