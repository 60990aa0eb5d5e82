"""What a comparison found, as objects and as comparison.json."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal

from foundry_core.config.validation import read_as
from foundry_core.evaluation.design import Family, Rule
from foundry_core.evaluation.quality import Measure
from foundry_core.evaluation.score import Score

FILE = "comparison.json"
Basis = Literal["none", "provisional", "recipe"]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """`variant` held against `base`, two labels of the table.

    difference: mean over the table's tasks of the variant's success rate less the base's, with an
    approximate 95 % interval [low, high]: the test decides, not the interval. None where one has no
    outcome.
    p_value, p_corrected: exact, and by Holm within the table's family; None where a sequential
    design was asked instead, or nothing can be said. p_episodes, p_seeds: its parts.
    decision: "better", "worse", "not separated", "undecided" (sequential: go on) or "no verdict".
    basis: what a decision speaks of: "none" these trained policies, else the recipes.
    detectable: the smallest difference that this much data separates with 80 % power, of pairs that
    are not separated. turned: whether they would be, but for crashes.
    """

    variant: str
    base: str
    difference: float | None
    low: float | None
    high: float | None
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
    turned: bool = False
    note: str = ""

    @property
    def separated(self) -> bool:
        return self.decision in ("better", "worse")


@dataclass(frozen=True, kw_only=True)
class Overall:
    """A label over a table's tasks. counted: all episodes together. rate: the mean of its tasks'
    rates, which is what is compared; rate_with_crashes: the same with every crash as a failure;
    seeds: rate of each seed's evaluation, by label."""

    counted: Score
    rate: float | None
    rate_with_crashes: float | None = None
    seeds: Mapping[str, float | None] = field(default_factory=dict)


def rank(overall: Mapping[str, Overall]) -> list[str]:
    """The labels, the best first."""
    return sorted(overall, key=lambda label: (-(overall[label].rate or 0.0), label))


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
class TaskTable:
    """A family of its own: some tasks, all labels, p-values corrected over this table's pairs only.

    tasks: those that are compared. size: of the family as it was started. letters: two labels share
    one unless their pair is separated; pairs that were not tested, or have no verdict, share one.
    silent: label → tasks that the table was asked for and the label has no outcome in.
    """

    tasks: Sequence[str]
    size: int
    overall: Mapping[str, Overall]
    differences: Sequence[Difference]
    letters: Mapping[str, str]
    silent: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def against(self, base: str | None, label: str) -> Difference | None:
        """The difference of a label and the base; None for the base."""
        for one in self.differences:
            if (one.variant, one.base) == (label, base):
                return one
        return None

    def ranked(self) -> list[str]:
        return rank(self.overall)

    def mute(self, label: str) -> bool:
        """Whether the label has no outcome in any task of the table."""
        return self.overall[label].rate is None


ContrastKind = Literal["main effect", "interaction", "trend"]


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """A statement about several variants, judged in a family of its own with the table's others.

    paths: the settings that it is about; text: 'llm.training.steps: 8 → 32'. estimate: of a main
    effect the difference of success, every combination of the other settings weighing the same; of
    an interaction how much the first setting's effect grows by the second; of a trend the rise of
    the straight line from the lowest value to the highest, values in equal steps. With an
    approximate 95 % interval.
    decision: "higher", "lower", "not separated", "no verdict". p_permutation: of the runs alone by
    listing all assignments, beside the test and not part of it, where they can be listed.
    size: of the family. basis, detectable and the other p-values: as those of a Difference.
    """

    kind: ContrastKind
    paths: Sequence[str]
    text: str
    estimate: float
    low: float
    high: float
    basis: Basis
    test: str
    p_value: float
    decision: str = "not separated"
    p_corrected: float | None = None
    p_episodes: float | None = None
    p_seeds: float | None = None
    p_permutation: float | None = None
    size: int = 1
    detectable: float | None = None
    note: str = ""

    @property
    def separated(self) -> bool:
        return self.decision in ("higher", "lower")


@dataclass(frozen=True, kw_only=True)
class DosePoint:
    """Success at one value, over all settings of what else is varied, with its 95 % interval over
    runs and episodes; seeds: of each run. line: the straight line's place there, with its own."""

    value: float
    rate: float
    low: float
    high: float
    seeds: Sequence[float]
    line: float
    line_low: float
    line_high: float


@dataclass(frozen=True, kw_only=True)
class Dose:
    """Success over the values of a setting, in rising order."""

    path: str
    points: Sequence[DosePoint]


@dataclass(frozen=True, kw_only=True)
class Comparison(TaskTable):
    """The table over all common tasks, and the others beside it, each a family of its own.

    labels: the base first, if there is one. missing: tasks that are not compared, with the labels
    that did not run them or have no outcome there. scores: task → label → score, of every task.
    family: which pairs were tested, and corrected together: every label against the base, or all
    pairs (best: at levels that keep only the best safe). groups: of several tasks, by name;
    task_tables: by task, where there are several. sequential: where the evaluations state a design,
    which then decides over all tasks instead of p-values; there are no other tables.
    crashes: label → cause → episodes. deviation: standard deviation of rates between seeds, pooled
    over labels, with a 95 % interval, where there are several. criterion: when an episode counted
    as solved, in words; "" where it is not known. controls: label → task → score of what learned
    nothing; quality: exam → measures of a model that policies were made from; both are shown beside
    the rest and part of no test. contrasts, doses: of variants that are a grid of settings, or
    values in an order; contrasts are one family beside the table's."""

    base: str | None
    alpha: float
    family: Family
    labels: Sequence[str]
    missing: Mapping[str, Sequence[str]]
    scores: Mapping[str, Mapping[str, Score]]
    groups: Mapping[str, TaskTable] = field(default_factory=dict)
    task_tables: Mapping[str, TaskTable] = field(default_factory=dict)
    crashes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    deviation: tuple[float, float, float] | None = None
    sequential: Sequential | None = None
    criterion: str = ""
    controls: Mapping[str, Mapping[str, Score]] = field(default_factory=dict)
    quality: Mapping[str, Sequence[Measure]] = field(default_factory=dict)
    contrasts: Sequence[Contrast] = field(default_factory=list)
    doses: Sequence[Dose] = field(default_factory=list)

    def against_base(self, label: str) -> Difference | None:
        """The difference of a label and the base over all tasks; None for the base."""
        return self.against(self.base, label)

    def mark(self, table: TaskTable, label: str) -> str:
        """What a table decides of a label, in a few letters: where all pairs were compared its
        letters, else "base", or what it is to the base: + better, − worse, = not separated, ? no
        verdict."""
        if table.mute(label):
            return "no outcome"
        if self.base is None:
            return table.letters[label]
        found = table.against(self.base, label)
        signs = {"better": "+", "worse": "−", "not separated": "="}
        return "base" if found is None else signs.get(found.decision, "?")

    def summaries(self) -> dict[str, TaskTable]:
        """The tables of several tasks, by title: all, and the groups."""
        return {"all tasks": self, **self.groups}

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
