"""What a comparison could have seen: the smallest true difference it separates with 80 % power.

"Not separated" says little without it. Everything is computed from what was observed (how many
pairs were discordant, how far seeds lie apart), so these are estimates, not promises.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import sqrt

import numpy as np
from scipy import optimize, stats

from foundry_core.evaluation.statistics.walk import WalkDesign, walk_power

_POWER = 0.8
_GRID = 120


def difference_by_deviation(null_deviation: float, alpha: float = 0.05) -> float:
    """By the normal approximation of a two-sided test whose statistic has this standard deviation
    under the null; 0 to 3 % low from 15 expected discordant pairs on."""
    return float((stats.norm.isf(alpha / 2) + stats.norm.ppf(_POWER)) * null_deviation)


def paired_difference(pairs: int, discordant_share: float, alpha: float = 0.05) -> float | None:
    """Exactly, for McNemar's test on `pairs` scenarios of which this share comes out differently.
    None where even a difference of the whole share would be missed too often."""
    if not pairs or not discordant_share:
        return None

    def lacks(difference: float) -> float:
        return _paired_power(pairs, discordant_share, difference, alpha) - _POWER

    if lacks(discordant_share) < 0:
        return None
    return float(optimize.brentq(lacks, 0.0, discordant_share, xtol=1e-5))


def walk_difference(design: WalkDesign, discordant: Sequence[int], pairs: int) -> float | None:
    """For the walk on so many pairs, of which these came out differently between looks at equal
    distances. None as above."""
    if walk_power(design, discordant, 1.0) < _POWER:
        return None

    def lacks(win: float) -> float:
        return walk_power(design, discordant, win) - _POWER

    win = optimize.brentq(lacks, 0.5, 1.0, xtol=1e-4)
    return float((2 * win - 1) * sum(discordant) / pairs)


def _paired_power(pairs: int, share: float, difference: float, alpha: float) -> float:
    """P(the better arm is found better): the number of discordant pairs is binomial, and given it
    the wins are."""
    counts = np.arange(pairs + 1)
    chance = stats.binom.pmf(counts, pairs, share)
    win = (1 + difference / share) / 2
    return float(chance @ stats.binom.sf(_critical(pairs, alpha) - 1, counts, win))


@lru_cache(maxsize=64)
def _critical(pairs: int, alpha: float) -> np.ndarray:
    """Per number of discordant pairs the fewest wins that separate (one more than all: none)."""
    counts = np.arange(pairs + 1)
    wins = stats.binom.isf(alpha / 2, counts, 0.5) + 1
    return np.where(2 * stats.binom.sf(wins - 1, counts, 0.5) <= alpha, wins, counts + 1)


def welch_factor(seeds: int, alpha: float = 0.05) -> float:
    """Difference between two recipes, in standard deviations between seeds, that Welch's t-test
    separates with 80 % power at `seeds` runs each, if both scatter alike and normally."""
    degrees = seeds - 1
    quantiles = (np.arange(_GRID) + 0.5) / _GRID
    variances = stats.chi2.ppf(quantiles, degrees) / degrees
    first, second = np.meshgrid(variances, variances)
    error = np.sqrt((first + second) / seeds)
    shared = (first + second) ** 2 * degrees / (first**2 + second**2)
    bound = stats.t.isf(alpha / 2, shared) * error

    def power(difference: float) -> float:
        return float(stats.norm.sf((bound - difference) / sqrt(2 / seeds)).mean())

    return _smallest(power)


def pooled_factor(runs_a: int, runs_b: int, degrees: int, alpha: float = 0.05) -> float:
    """The same for the t-test whose variance is pooled over a table with `degrees` degrees of
    freedom in all."""
    scale = sqrt(1 / runs_a + 1 / runs_b)
    bound = stats.t.isf(alpha / 2, degrees)

    def power(difference: float) -> float:
        return float(stats.nct.sf(bound, degrees, difference / scale))

    return _smallest(power)


def _smallest(power: Callable[[float], float]) -> float:
    high = 1.0
    while power(high) < _POWER:
        high *= 2
    return float(optimize.brentq(lambda difference: power(difference) - _POWER, 0.0, high))
