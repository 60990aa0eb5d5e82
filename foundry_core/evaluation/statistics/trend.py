"""Does success rise or fall along ordered values? Exactly, with no curve assumed.

A block is one scenario that was played at several values: if the value does not matter, every
choice of which of its episodes succeeded is equally likely. The statistic is the sum of the
successes, each times its value's score (equal steps: 0, 1, 2, ...), every task weighing the same.
With two values it is the block test; with one episode per value and scenario it is Page's test for
outcomes of 0 and 1, stratified by task.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from math import comb, sqrt

import numpy as np
from scipy import special

from foundry_core.evaluation.statistics.intervals import check_counts
from foundry_core.evaluation.statistics.laws import convolve, integer_weights, power, tails

# Assignments of training runs to values up to which all are listed.
_LISTED = 400_000
Rates = Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Levels:
    """One scenario, or all episodes of a task without a partner: episodes and successes at each of
    the ordered values; 0 episodes where a value was not played."""

    n: tuple[int, ...]
    successes: tuple[int, ...]

    def __post_init__(self) -> None:
        for successes, n in zip(self.successes, self.n, strict=True):
            check_counts(successes, n)


@dataclass(frozen=True, kw_only=True)
class TrendTest:
    """p: two-sided, exact. direction: 1 rising, -1 falling, 0 neither. null_deviation: of the
    statistic in its own units under the null; 0 where nothing could have been told apart."""

    p: float
    direction: int
    null_deviation: float


def trend_test(tasks: Mapping[str, Sequence[Levels]]) -> TrendTest:
    """task → its blocks, values in rising order in all of them."""
    counted = {task: Counter(blocks) for task, blocks in tasks.items() if blocks}
    if not counted:
        return TrendTest(p=1.0, direction=0, null_deviation=0.0)
    sizes = [sum(count * sum(one.n) for one, count in c.items()) for c in counted.values()]
    weights = integer_weights([1 / max(size, 1) for size in sizes])
    laws: dict[int, np.ndarray] = {}
    seen, expected, variance = 0, 0.0, 0.0
    for weight, blocks in zip(weights, counted.values(), strict=True):
        laws.setdefault(weight, np.ones(1))
        for block, count in sorted(blocks.items(), key=lambda item: (item[0].n, item[0].successes)):
            mean, spread = _moments(block)
            seen += weight * count * sum(at * s for at, s in enumerate(block.successes))
            expected += weight * count * mean
            variance += weight**2 * count * spread
            law = power(_law(block.n, sum(block.successes)), count)
            laws[weight] = convolve(laws[weight], law)
    lower, upper = tails(laws, seen)
    return TrendTest(
        p=min(1.0, 2 * max(min(lower, upper), 0.0)),
        direction=int(np.sign(round(seen - expected, 9))),
        null_deviation=sqrt(variance),
    )


def _moments(block: Levels) -> tuple[float, float]:
    """Mean and variance of the block's sum of scores: drawn without replacement."""
    n, m = sum(block.n), sum(block.successes)
    if n < 2:
        return float(sum(at * s for at, s in enumerate(block.successes))), 0.0
    centre = sum(at * own for at, own in enumerate(block.n)) / n
    squares = sum(own * (at - centre) ** 2 for at, own in enumerate(block.n))
    return m * centre, m * (n - m) / (n * (n - 1)) * squares


@lru_cache(maxsize=4096)
def _law(n: tuple[int, ...], m: int) -> np.ndarray:
    """Probabilities of the sum of scores, from 0 on, given m successes among all. As binomials of
    one rate, conditioned on their sum: nothing overflows, however many episodes."""
    rate = m / max(1, sum(n))
    length = 1 + sum(at * own for at, own in enumerate(n))
    found = np.zeros((m + 1, length))
    found[0, 0] = 1.0
    for score, own in enumerate(n):
        chances = _binomial(own, rate)
        after = np.zeros_like(found)
        for count in range(min(own, m) + 1):
            step = count * score
            after[count:, step:] += chances[count] * found[: m + 1 - count, : length - step]
        found = after
    return found[m] / found[m].sum()


def _binomial(n: int, rate: float) -> np.ndarray:
    counts = np.arange(n + 1)
    ways = special.gammaln(n + 1) - special.gammaln(counts + 1) - special.gammaln(n - counts + 1)
    odds = special.xlogy(counts, rate) + special.xlog1py(n - counts, -rate)
    return np.exp(ways + odds)


def permutation_p(rates: Sequence[Rates]) -> float | None:
    """Of the trend over training runs alone, with no bell curve: the share of all assignments of
    the runs to the values whose trend is as strong, rising or falling. rates: per value, in rising
    order, one per run. None where there are more than 400,000 assignments, or only one."""
    sizes = [len(own) for own in rates]
    ways, left = 1, sum(sizes)
    for size in sizes:
        ways, left = ways * comb(left, size), left - size
    if not 1 < ways <= _LISTED:
        return None
    values = [rate for own in rates for rate in own]
    scores = _scores(len(rates))
    seen = abs(sum(s * float(np.mean(own)) for s, own in zip(scores, rates, strict=True)))
    sums = {0: np.zeros(1)}  # the runs that are assigned, as bits → the trend of every assignment
    for score, size in zip(scores, sizes, strict=True):
        after: dict[int, list[np.ndarray]] = {}
        for taken, known in sums.items():
            free = [at for at in range(len(values)) if not taken >> at & 1]
            for own_runs in combinations(free, size):
                mask = taken + sum(1 << at for at in own_runs)
                more = score * sum(values[at] for at in own_runs) / size
                after.setdefault(mask, []).append(known + more)
        sums = {mask: np.concatenate(parts) for mask, parts in after.items()}
    (trends,) = sums.values()
    return float(np.mean(np.abs(trends) >= seen - 1e-12))


def rise_weights(count: int) -> list[float]:
    """Of each of `count` values in equal steps in the rise of the least-squares line from the first
    value to the last. Their sum is 0."""
    scores = _scores(count)
    squares = sum(score**2 for score in scores)
    return [score * (count - 1) / squares for score in scores]


def _scores(count: int) -> list[float]:
    return [at - (count - 1) / 2 for at in range(count)]
