"""Recipes, not policies: is the difference larger than what training again would give?

The unit is a training run. Each seed of a variant has one rate, the mean of its tasks' rates; two
variants differ if Welch's t-test on those rates rejects AND the episodes do too (`block_test`): the
p-value is the larger of the two. Episodes alone call scatter between seeds an effect; seeds alone
can be equal by luck where few episodes back them.

With two seeds in an arm nothing can be said about its own scatter, so it is borrowed from all
variants of the table (pooled variance): a provisional verdict, right if all scatter alike. With one
seed there is no verdict about the recipe at all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Literal

import numpy as np
from scipy import special

Basis = Literal["none", "provisional", "recipe"]
Rates = Sequence[float]


@dataclass(frozen=True, kw_only=True)
class SeedTest:
    """p: two-sided, of the runs alone; None where no claim about recipes can be made. deviation:
    the standard error of the difference between runs; degrees: its degrees of freedom."""

    basis: Basis
    difference: float
    p: float | None
    deviation: float | None
    degrees: float | None

    def half_width(self, confidence: float = 0.95) -> float | None:
        """Half of the interval of the difference between recipes, from the runs alone."""
        if self.deviation is None or self.degrees is None:
            return None
        return float(special.stdtrit(self.degrees, (1 + confidence) / 2) * self.deviation)


def seed_test(a: Rates, b: Rates, table: Mapping[str, Rates]) -> SeedTest:
    """Variant A against variant B, one task-balanced success rate per seed. table: the rates of
    every variant of the table these two belong to."""
    difference = float(np.mean(a) - np.mean(b))
    least = min(len(a), len(b))
    if least < 2:
        return SeedTest(basis="none", difference=difference, p=None, deviation=None, degrees=None)
    if least == 2:
        groups = [rates for rates in table.values() if len(rates) >= 2]
        tests = [_pooled(a, b, groups)]
    else:
        tests = [_welch(a, b)]
    if len(a) != len(b):
        tests += [_welch(a, b), _pooled(a, b, [a, b])]
    p, deviation, degrees = max(tests)
    return SeedTest(
        basis="provisional" if least == 2 else "recipe",
        difference=difference,
        p=p,
        deviation=deviation,
        degrees=degrees,
    )


Test = tuple[float, float, float]  # p, standard error, degrees of freedom


def _welch(a: Rates, b: Rates) -> Test:
    """Unequal variances (Welch 1947)."""
    parts = [_variance(rates) / len(rates) for rates in (a, b)]
    total = sum(parts)
    if not total:
        return _tied(a, b, len(a) + len(b) - 2)
    shares = [part**2 / (len(rates) - 1) for part, rates in zip(parts, (a, b), strict=True)]
    return _t(a, b, sqrt(total), total**2 / sum(shares))


def _pooled(a: Rates, b: Rates, groups: Sequence[Rates]) -> Test:
    """One variance for all groups."""
    degrees = sum(len(rates) - 1 for rates in groups)
    squares = sum(_variance(rates) * (len(rates) - 1) for rates in groups)
    if not squares:
        return _tied(a, b, degrees)
    return _t(a, b, sqrt(squares / degrees * (1 / len(a) + 1 / len(b))), degrees)


def _t(a: Rates, b: Rates, deviation: float, degrees: float) -> Test:
    statistic = abs(float(np.mean(a) - np.mean(b))) / deviation
    return float(2 * special.stdtr(degrees, -statistic)), deviation, degrees


def _tied(a: Rates, b: Rates, degrees: float) -> Test:
    """Seeds that do not scatter leave the verdict to the episodes."""
    return (0.0 if not np.isclose(np.mean(a), np.mean(b)) else 1.0), 0.0, degrees


def _variance(rates: Rates) -> float:
    return float(np.var(rates, ddof=1))
