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
    return seed_contrast({"a": 1.0, "b": -1.0}, {"a": a, "b": b}, list(table.values()))


def seed_contrast(
    weights: Mapping[str, float],
    rates: Mapping[str, Rates],
    table: Sequence[Rates] | None = None,
) -> SeedTest:
    """A weighted sum of variants' means, such as a main effect or a trend. rates: variant → one
    rate per seed. table: of every variant whose scatter two seeds may borrow; default: rates."""
    arms = [(weight, rates[name]) for name, weight in weights.items() if weight]
    difference = _sum(arms)
    counts = {len(own) for _, own in arms}
    least = min(counts)
    if least < 2:
        return SeedTest(basis="none", difference=difference, p=None, deviation=None, degrees=None)
    if least == 2:
        groups = list(rates.values()) if table is None else table
        tests = [_pooled(arms, [own for own in groups if len(own) >= 2])]
    else:
        tests = [_welch(arms)]
    if len(counts) > 1:
        tests += [_welch(arms), _pooled(arms, [own for _, own in arms])]
    p, deviation, degrees = max(tests)
    return SeedTest(
        basis="provisional" if least == 2 else "recipe",
        difference=difference,
        p=p,
        deviation=deviation,
        degrees=degrees,
    )


Arms = Sequence[tuple[float, Rates]]  # weight, one rate per seed
Test = tuple[float, float, float]  # p, standard error, degrees of freedom


def _welch(arms: Arms) -> Test:
    """Unequal variances (Welch 1947, Satterthwaite 1946)."""
    parts = [(weight**2 * _variance(own) / len(own), len(own) - 1) for weight, own in arms]
    total = sum(part for part, _ in parts)
    if not total:
        return _tied(arms, sum(degrees for _, degrees in parts))
    return _t(arms, sqrt(total), total**2 / sum(part**2 / degrees for part, degrees in parts))


def _pooled(arms: Arms, groups: Sequence[Rates]) -> Test:
    """One variance for all groups."""
    degrees = sum(len(rates) - 1 for rates in groups)
    squares = sum(_variance(rates) * (len(rates) - 1) for rates in groups)
    if not squares:
        return _tied(arms, degrees)
    spread = sum(weight**2 / len(own) for weight, own in arms)
    return _t(arms, sqrt(squares / degrees * spread), degrees)


def _sum(arms: Arms) -> float:
    return float(sum(weight * np.mean(own) for weight, own in arms))


def _t(arms: Arms, deviation: float, degrees: float) -> Test:
    return float(2 * special.stdtr(degrees, -abs(_sum(arms)) / deviation)), deviation, degrees


def _tied(arms: Arms, degrees: float) -> Test:
    """Seeds that do not scatter leave the verdict to the episodes."""
    return (1.0 if np.isclose(_sum(arms), 0.0, atol=1e-9) else 0.0), 0.0, degrees


def _variance(rates: Rates) -> float:
    return float(np.var(rates, ddof=1))
