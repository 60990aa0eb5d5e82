"""How many episodes a comparison needs, before the first one is played.

Two designs: a number of episodes per arm fixed in advance and tested once, by the normal formula
for two proportions (Fleiss, Levin & Paik 2003, with the pooled variance under the null); and the
sequential test of `sequential`, whose power and expected length are exact sums over its table.
"""

from dataclasses import dataclass
from math import ceil, sqrt

import numpy as np
from scipy import stats

from foundry_core.errors import FoundryError
from foundry_core.evaluation.statistics.sequential import SequentialDesign, stopping
from foundry_core.evaluation.statistics.sequential_tables import designed_table

# A minute or two, and a gigabyte or two.
_DESIGN_PAIRS = 800


@dataclass(frozen=True, kw_only=True)
class Question:
    """base, variant: the two true success rates to tell apart. comparisons: how many tests share
    alpha (Bonferroni, which is what Holm asks of the smallest p-value). design_effect: how many
    episodes of repeated seeds are worth one independent episode."""

    base: float
    variant: float
    alpha: float = 0.05
    power: float = 0.8
    comparisons: int = 1
    design_effect: float = 1.0

    def __post_init__(self) -> None:
        for name in ("base", "variant"):
            if not 0 <= getattr(self, name) <= 1:
                raise FoundryError(f"{name} = {getattr(self, name)} is no success rate", "0 to 1")
        for name in ("alpha", "power"):
            if not 0 < getattr(self, name) < 1:
                value = getattr(self, name)
                raise FoundryError(f"{name} = {value} must lie strictly between 0 and 1")
        if self.base == self.variant:
            raise FoundryError(
                f"both rates are {self.base}: no number of episodes tells equal rates apart",
                "name the smallest difference that would matter to you",
            )
        if self.comparisons < 1 or self.design_effect < 1:
            raise FoundryError(
                f"comparisons = {self.comparisons}, design_effect = {self.design_effect}: "
                "both are at least 1"
            )

    @property
    def level(self) -> float:
        return self.alpha / self.comparisons


def fixed_episodes(question: Question) -> int:
    """Episodes per arm for the wanted power of one two-sided test."""
    p, q = question.base, question.variant
    middle = (p + q) / 2
    null = stats.norm.isf(question.level / 2) * sqrt(2 * middle * (1 - middle))
    real = stats.norm.ppf(question.power) * sqrt(p * (1 - p) + q * (1 - q))
    return ceil(question.design_effect * ((null + real) / (p - q)) ** 2)


def fixed_power(question: Question, episodes: int) -> float:
    """Power of the same test with `episodes` per arm; question.power is not used."""
    p, q = question.base, question.variant
    middle = (p + q) / 2
    spread = sqrt(p * (1 - p) + q * (1 - q))
    far = abs(p - q) * sqrt(episodes / question.design_effect)
    gap = far - stats.norm.isf(question.level / 2) * sqrt(2 * middle * (1 - middle))
    if spread == 0:
        return 1.0 if gap > 0 else 0.0
    return float(stats.norm.cdf(gap / spread))


@dataclass(frozen=True, kw_only=True)
class SequentialPower:
    """What a sequential design achieves. expected: pairs until it stops if the rates are as asked;
    expected_if_equal: if both are the base's."""

    n_max: int
    power: float
    expected: float
    expected_if_equal: float


def sequential_design(question: Question) -> SequentialPower:
    """The smallest budget, to within a tenth, whose test has the wanted power, exactly computed.
    Seconds up to 200 pairs, a minute at 500, the second time none; time and memory grow with the
    square, so FoundryError beyond 800."""
    fixed = fixed_episodes(question)
    n_max = max(8, fixed)
    while n_max <= _DESIGN_PAIRS:
        found = sequential_power(question, n_max)
        if found.power >= question.power:
            return found
        n_max = ceil(1.1 * n_max)
    raise FoundryError(
        f"more than {_DESIGN_PAIRS} pairs are needed, too many to compute a sequential test for",
        f"{fixed} episodes per arm do for one test at the end; or ask for a larger difference",
    )


def sequential_power(question: Question, n_max: int) -> SequentialPower:
    """Exact power and expected length of the sequential test with a budget of `n_max` pairs.
    A design effect does not apply: pairs must be independent."""
    if question.design_effect != 1:
        raise FoundryError(
            f"design_effect = {question.design_effect}: sequential pairs must be independent",
            "plan a fixed number of episodes for several seeds",
        )
    table = designed_table(SequentialDesign(n_max=n_max, alpha=question.level))
    up, down = stopping(table, question.base, question.variant)
    up_if_equal, down_if_equal = stopping(table, question.base, question.base)
    right = up if question.variant > question.base else down
    return SequentialPower(
        n_max=n_max,
        power=float(right.sum()),
        expected=_expected(up + down, n_max),
        expected_if_equal=_expected(up_if_equal + down_if_equal, n_max),
    )


def _expected(stops: np.ndarray, n_max: int) -> float:
    """Mean pairs: a path that never stops uses all of the budget."""
    return float(stops @ np.arange(n_max + 1) + n_max * (1 - stops.sum()))
