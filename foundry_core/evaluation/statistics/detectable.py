"""What a comparison could have seen: the smallest true difference it separates with 80 % power.

"Not separated" says little without it. Everything is computed from what was observed (how many
pairs were discordant, how far seeds lie apart), so these are estimates, not promises.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import sqrt

import numpy as np
from scipy import special

from foundry_core.evaluation.statistics.walk import WalkDesign, walk_power

_POWER = 0.8
_GRID = 120


def difference_by_deviation(null_deviation: float, alpha: float = 0.05) -> float:
    """By the normal approximation of a two-sided test whose statistic has this standard deviation
    under the null; 0 to 3 % low from 15 expected discordant pairs on."""
    return float((special.ndtri(_POWER) - special.ndtri(alpha / 2)) * null_deviation)


def paired_difference(pairs: int, discordant_share: float, alpha: float = 0.05) -> float | None:
    """Exactly, for McNemar's test on `pairs` scenarios of which this share comes out differently.
    None where even a difference of the whole share would be missed too often."""
    if not pairs or not discordant_share:
        return None
    counts = np.arange(pairs + 1)
    ways = special.gammaln(pairs + 1) - special.gammaln(counts + 1)
    ways -= special.gammaln(pairs - counts + 1)
    unlikely = special.xlog1py(pairs - counts, -discordant_share)
    chance = np.exp(ways + special.xlogy(counts, discordant_share) + unlikely)
    likely = chance > 1e-12
    counts, chance, wins = counts[likely], chance[likely], _critical(pairs, alpha)[likely]

    def lacks(difference: float) -> float:
        """Power less what is asked for: the number of discordant pairs is binomial, and given it
        the wins of the better arm are."""
        win = (1 + difference / discordant_share) / 2
        return float(chance @ _at_least(wins, counts, win)) - _POWER

    return None if lacks(discordant_share) < 0 else _root(lacks, discordant_share, 1e-5)


def walk_difference(design: WalkDesign, discordant: Sequence[int], pairs: int) -> float | None:
    """For the walk on so many pairs, of which these came out differently between looks at equal
    distances. None as above."""

    def lacks(share: float) -> float:
        """share: the difference among the discordant pairs, wins less losses."""
        return walk_power(design, discordant, (1 + share) / 2) - _POWER

    if lacks(1.0) < 0:
        return None
    return _root(lacks, 1.0, 2e-4) * sum(discordant) / pairs


def _at_least(wins: np.ndarray, counts: np.ndarray, p: float) -> np.ndarray:
    """P(X >= wins) of binomials, wins >= 1."""
    possible = special.betainc(wins, np.maximum(counts - wins, 0) + 1, p)
    return np.where(wins <= counts, possible, 0.0)


@lru_cache(maxsize=64)
def _critical(pairs: int, alpha: float) -> np.ndarray:
    """Per number of discordant pairs the fewest wins that separate (one more than all: none)."""
    counts = np.arange(pairs + 1)
    low, high = counts // 2, counts + 1  # half the pairs never separate; more than all always would
    while (high - low > 1).any():
        middle = np.maximum((low + high) // 2, 1)
        separates = 2 * _at_least(middle, counts, 0.5) <= alpha
        low, high = np.where(separates, low, middle), np.where(separates, middle, high)
    return high


@lru_cache(maxsize=64)
def welch_factor(seeds: int, alpha: float = 0.05) -> float:
    """Difference between two recipes, in standard deviations between seeds, that Welch's t-test
    separates with 80 % power at `seeds` runs each, if both scatter alike and normally."""
    degrees = seeds - 1
    quantiles = (np.arange(_GRID) + 0.5) / _GRID
    variances = 2 * special.gammaincinv(degrees / 2, quantiles) / degrees
    first, second = np.meshgrid(variances, variances)
    error = np.sqrt((first + second) / seeds)
    shared = (first + second) ** 2 * degrees / (first**2 + second**2)
    bound = -special.stdtrit(shared, alpha / 2) * error

    def power(difference: float) -> float:
        return float(special.ndtr((difference - bound) / sqrt(2 / seeds)).mean())

    return _smallest(power)


@lru_cache(maxsize=64)
def pooled_factor(runs_a: int, runs_b: int, degrees: int, alpha: float = 0.05) -> float:
    """The same for the t-test whose variance is pooled over a table with `degrees` degrees of
    freedom in all."""
    scale = sqrt(1 / runs_a + 1 / runs_b)
    bound = -special.stdtrit(degrees, alpha / 2)

    def power(difference: float) -> float:
        return float(1 - special.nctdtr(degrees, difference / scale, bound))

    return _smallest(power)


def contrast_difference(error: float, degrees: float, alpha: float = 0.05) -> float:
    """Of any weighted sum of means by its t-test: error is its standard error as estimated from the
    runs, with so many degrees of freedom."""
    bound = -special.stdtrit(degrees, alpha / 2)

    def power(difference: float) -> float:
        return float(1 - special.nctdtr(degrees, difference, bound))

    return error * _smallest(power)


def _smallest(power: Callable[[float], float]) -> float:
    high = 1.0
    while power(high) < _POWER:
        high *= 2
    return _root(lambda difference: power(difference) - _POWER, high)


def _root(rising: Callable[[float], float], high: float, within: float = 1e-7) -> float:
    """Where a function that is below 0 at 0 and not at `high` passes it, by halving."""
    low = 0.0
    while high - low > within:
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return high
