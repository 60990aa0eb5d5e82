"""The exact block test: could the labels of two arms have been swapped within each scenario?

A block is one scenario that both arms played: arm A succeeded in a of its nA episodes, arm B in b
of its nB. Given m = a + b, every choice of which m episodes succeeded is equally likely if the arms
do not differ there, so a is hypergeometric, blocks are independent, and the law of any weighted sum
of successes is a convolution: no normal approximation, no nuisance parameter. Episodes without a
partner form one more block per task. The statistic is the mean over tasks of the difference of the
success rates; a task's size does not weigh.

With one episode per arm and scenario and tasks of one size this is McNemar's exact test (1947) over
all tasks; with nothing shared it is the exact conditional test stratified by task, for one task
Fisher's, doubled.

Notation: NA, NB a task's episodes; w = 1/NA + 1/NB what one success of A is worth there.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import gcd, sqrt

import numpy as np
from scipy import fft, stats

from foundry_core.errors import FoundryError
from foundry_core.evaluation.statistics.intervals import check_counts

# Weights of unequal tasks are rounded to this many steps: the law stays exact, the statistic is a
# hair different.
_STEPS = 100
# Products above which a convolution by Fourier transform is cheaper; it is good to about 1e-15.
_DIRECT = 50_000_000
# What a p-value by Fourier transform cannot tell from zero.
SMALLEST_P = 1e-12
_Z95 = 1.959964


@dataclass(frozen=True, kw_only=True)
class Block:
    """Episodes and successes of both arms under one exchangeable condition."""

    n_a: int
    a: int
    n_b: int
    b: int

    def __post_init__(self) -> None:
        check_counts(self.a, self.n_a)
        check_counts(self.b, self.n_b)


@dataclass(frozen=True, kw_only=True)
class TaskBlocks:
    """One task's episodes: the scenarios that both arms played, and the rest, which has episodes
    of both arms (where only one arm has any, nothing can be swapped)."""

    shared: tuple[Block, ...]
    rest: Block | None = None


@dataclass(frozen=True, kw_only=True)
class BlockTest:
    """difference: mean over tasks of rate A minus rate B. p: two-sided, exact. low, high: an
    approximate 95 % interval of the difference; the test decides, not the interval. null_deviation:
    the difference's standard deviation under the null. pairs: shared scenarios. discordant: those
    in which the arms' rates differ. unpaired: episodes of both arms that had no partner."""

    difference: float
    p: float
    low: float
    high: float
    deviation: float
    null_deviation: float
    tasks: tuple[str, ...]
    pairs: int
    discordant: int
    unpaired: int


Outcomes = Mapping[str, Mapping[int, Sequence[bool]]]


def task_blocks(
    a: Mapping[int, Sequence[bool]], b: Mapping[int, Sequence[bool]]
) -> TaskBlocks | None:
    """scenario → that arm's outcomes, one per episode (several where several seeds played it).
    None where an arm has no episode."""
    common = sorted(scenario for scenario in a.keys() & b.keys() if a[scenario] and b[scenario])
    shared = tuple(_block(a[scenario], b[scenario]) for scenario in common)
    alone_a = [outcome for scenario in a.keys() - set(common) for outcome in a[scenario]]
    alone_b = [outcome for scenario in b.keys() - set(common) for outcome in b[scenario]]
    rest = _block(alone_a, alone_b) if alone_a and alone_b else None
    return TaskBlocks(shared=shared, rest=rest) if shared or rest else None


def _block(a: Sequence[bool], b: Sequence[bool]) -> Block:
    return Block(n_a=len(a), a=sum(map(bool, a)), n_b=len(b), b=sum(map(bool, b)))


def block_test(a: Outcomes, b: Outcomes, *, mid: bool = False) -> BlockTest:
    """Arm A against arm B over the tasks that both have: task → scenario → outcomes.

    mid: the mid-p-value, whose level exceeds 5 % at times; the default never does. FoundryError
    where the arms share no task with episodes of both.
    """
    found = {task: task_blocks(a[task], b[task]) for task in sorted(a.keys() & b.keys())}
    tasks = {task: blocks for task, blocks in found.items() if blocks}
    if not tasks:
        raise FoundryError(
            "the two arms have no task with episodes of both",
            "evaluate them on the same tasks",
        )
    return exact_test(tasks, mid=mid)


def exact_test(tasks: Mapping[str, TaskBlocks], *, mid: bool = False) -> BlockTest:
    """The test of blocks that are laid out already."""
    found = _counts(tasks)
    weights = _integer_weights((1 / found.task_a + 1 / found.task_b).tolist())
    weight = np.array(weights)[found.task]
    law = _null_law(found, weight)
    seen = int(weight @ (found.a - np.maximum(0, found.m - found.n_b)))
    at = law[seen] / 2 if mid else 0.0
    upper, lower = float(law[seen:].sum() - at), float(law[: seen + 1].sum() - at)
    p = min(1.0, 2 * max(min(upper, lower), 0.0))
    pairs = int(found.shared.sum())
    difference = float(
        np.mean(found.per_task(found.a) / found.task_a - found.per_task(found.b) / found.task_b)
    )
    deviation = _deviation(found)
    centre = difference * (1 - 2 / (pairs + 2)) if pairs else difference
    return BlockTest(
        difference=difference,
        p=p,
        low=max(-1.0, centre - _Z95 * deviation),
        high=min(1.0, centre + _Z95 * deviation),
        deviation=deviation,
        null_deviation=_null_deviation(found),
        tasks=tuple(tasks),
        pairs=pairs,
        discordant=int((found.shared & (found.a * found.n_b != found.b * found.n_a)).sum()),
        unpaired=int((found.n_a + found.n_b)[~found.shared].sum()),
    )


@dataclass(frozen=True, kw_only=True)
class _Counts:
    """Every block of a comparison, arrays [blocks], and its tasks' episodes, arrays [tasks]. task:
    the place of a block's task."""

    n_a: np.ndarray
    a: np.ndarray
    n_b: np.ndarray
    b: np.ndarray
    task: np.ndarray
    shared: np.ndarray
    task_a: np.ndarray
    task_b: np.ndarray

    @property
    def m(self) -> np.ndarray:
        return self.a + self.b

    def per_task(self, values: np.ndarray) -> np.ndarray:
        return np.bincount(self.task, values, len(self.task_a))


def _counts(tasks: Mapping[str, TaskBlocks]) -> _Counts:
    rows: list[tuple[int, ...]] = []
    for place, task in enumerate(tasks.values()):
        rows += [(block.n_a, block.a, block.n_b, block.b, place, 1) for block in task.shared]
        if task.rest:
            rows.append((task.rest.n_a, task.rest.a, task.rest.n_b, task.rest.b, place, 0))
    n_a, a, n_b, b, task_of, shared = np.array(rows).T.copy()
    return _Counts(
        n_a=n_a,
        a=a,
        n_b=n_b,
        b=b,
        task=task_of,
        shared=shared > 0,
        task_a=np.bincount(task_of, n_a, len(tasks)),
        task_b=np.bincount(task_of, n_b, len(tasks)),
    )


def _integer_weights(weights: Sequence[float]) -> list[int]:
    """Equal weights are ones: the lattice is whole successes."""
    largest = max(weights)
    rounded = [max(1, round(_STEPS * weight / largest)) for weight in weights]
    common = gcd(*rounded)
    return [weight // common for weight in rounded]


def _null_law(found: _Counts, weight: np.ndarray) -> np.ndarray:
    """Probabilities of Σ weight · A's successes, from the fewest possible on. Equal blocks of equal
    weight are one power, whatever their tasks."""
    columns = (weight, found.n_a, found.n_b, found.m)
    equal = Counter(zip(*(column.tolist() for column in columns), strict=True))
    laws: dict[int, np.ndarray] = {}
    for (worth, n_a, n_b, m), count in sorted(equal.items()):
        law = _power(_hypergeometric(n_a, n_b, m), count)
        laws[worth] = _convolve(laws[worth], law) if worth in laws else law
    return _weighted_sum(list(laws.values()), list(laws))


@lru_cache(maxsize=512)
def _hypergeometric(n_a: int, n_b: int, m: int) -> np.ndarray:
    """The law of A's successes in one block, from the fewest possible on; not to be changed."""
    law = stats.hypergeom.pmf(np.arange(max(0, m - n_b), min(m, n_a) + 1), n_a + n_b, m, n_a)
    return law / law.sum()


def _power(law: np.ndarray, count: int) -> np.ndarray:
    """The law of the sum of `count` independent draws."""
    if len(law) == 1:
        return np.ones(1)
    if len(law) == 2 and law[0] == law[1]:
        return stats.binom.pmf(np.arange(count + 1), count, 0.5)
    result, square = np.ones(1), law
    while count:
        if count & 1:
            result = _convolve(result, square)
        count >>= 1
        if count:
            square = _convolve(square, square)
    return result


def _weighted_sum(laws: Sequence[np.ndarray], weights: Sequence[int]) -> np.ndarray:
    """The law of Σ weight · X."""
    spread = []
    for law, weight in zip(laws, weights, strict=True):
        wide = np.zeros((len(law) - 1) * weight + 1)
        wide[::weight] = law
        spread.append(wide)
    total = np.ones(1)
    for wide in sorted(spread, key=len):
        total = _convolve(total, wide)
    return total


def _convolve(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    # Direct sums keep even the smallest tail to many digits.
    if np.count_nonzero(left) * len(right) <= _DIRECT or len(left) * len(right) <= _DIRECT:
        if len(left) > len(right):
            left, right = right, left
        if 4 * np.count_nonzero(left) < len(left):
            out = np.zeros(len(left) + len(right) - 1)
            for at in np.flatnonzero(left):
                out[at : at + len(right)] += left[at] * right
            return out
        return np.convolve(left, right)
    size = len(left) + len(right) - 1
    length = fft.next_fast_len(size, real=True)
    product = fft.rfft(left, length) * fft.rfft(right, length)
    return np.maximum(fft.irfft(product, length)[:size], 0.0)


def _null_deviation(found: _Counts) -> float:
    """Standard deviation of the difference if the arms are exchangeable in every block."""
    n_a, n_b, m = found.n_a.astype(float), found.n_b.astype(float), found.m.astype(float)
    total = n_a + n_b
    variance = m * (total - m) * n_a * n_b / (total**2 * np.maximum(total - 1, 1))
    worth = (1 / found.task_a + 1 / found.task_b)[found.task]
    return sqrt(float(worth**2 @ variance)) / len(found.task_a)


def _deviation(found: _Counts) -> float:
    """Standard deviation of the difference as estimated, with one scenario added in which only A,
    and one in which only B succeeds (without them the interval covers 92 % at 25 pairs)."""
    share_a, share_b = found.n_a / found.task_a[found.task], found.n_b / found.task_b[found.task]
    paired, alone = found.shared, ~found.shared
    gaps = found.a[paired] / found.n_a[paired] - found.b[paired] / found.n_b[paired]
    more = len(gaps) + 2
    spread = (float(gaps @ gaps) + 2) / more - (float(gaps.sum()) / more) ** 2
    share = (share_a[paired] + share_b[paired]) / 2
    variance = float(share @ share) * spread * len(gaps) / more
    for part, successes, n in ((share_a, found.a, found.n_a), (share_b, found.b, found.n_b)):
        variance += _rest_variance(part[alone], successes[alone], n[alone])
    return sqrt(variance) / len(found.task_a)


def _rest_variance(share: np.ndarray, successes: np.ndarray, n: np.ndarray) -> float:
    """Of the part that unpaired episodes have in the rates of their tasks; share: of its task's
    episodes that they are."""
    rate = (successes + 1) / (n + 2)
    return float(share**2 @ (rate * (1 - rate) / (n + 2)))
