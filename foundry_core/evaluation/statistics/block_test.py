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

    @property
    def blocks(self) -> tuple[Block, ...]:
        return (*self.shared, self.rest) if self.rest else self.shared

    @property
    def n_a(self) -> int:
        return sum(block.n_a for block in self.blocks)

    @property
    def n_b(self) -> int:
        return sum(block.n_b for block in self.blocks)


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
    weights = _integer_weights([1 / task.n_a + 1 / task.n_b for task in tasks.values()])
    laws = [_null_law(task.blocks) for task in tasks.values()]
    law = _weighted_sum(laws, weights)
    seen = sum(
        weight * (sum(block.a for block in task.blocks) - _least(task.blocks))
        for weight, task in zip(weights, tasks.values(), strict=True)
    )
    at = law[seen] / 2 if mid else 0.0
    upper, lower = float(law[seen:].sum() - at), float(law[: seen + 1].sum() - at)
    p = min(1.0, 2 * max(min(upper, lower), 0.0))
    shared = [block for task in tasks.values() for block in task.shared]
    difference = float(np.mean([_difference(task) for task in tasks.values()]))
    deviation = _deviation(tasks)
    centre = difference * (1 - 2 / (len(shared) + 2)) if shared else difference
    return BlockTest(
        difference=difference,
        p=p,
        low=max(-1.0, centre - _Z95 * deviation),
        high=min(1.0, centre + _Z95 * deviation),
        deviation=deviation,
        null_deviation=_null_deviation(tasks),
        tasks=tuple(tasks),
        pairs=len(shared),
        discordant=sum(block.a * block.n_b != block.b * block.n_a for block in shared),
        unpaired=sum(task.rest.n_a + task.rest.n_b for task in tasks.values() if task.rest),
    )


def _difference(task: TaskBlocks) -> float:
    a, b = sum(block.a for block in task.blocks), sum(block.b for block in task.blocks)
    return a / task.n_a - b / task.n_b


def _integer_weights(weights: Sequence[float]) -> list[int]:
    """Equal weights are ones: the lattice is whole successes."""
    largest = max(weights)
    rounded = [max(1, round(_STEPS * weight / largest)) for weight in weights]
    common = gcd(*rounded)
    return [weight // common for weight in rounded]


def _least(blocks: Sequence[Block]) -> int:
    """The fewest successes of A that these blocks allow: where their law begins."""
    return sum(max(0, block.a + block.b - block.n_b) for block in blocks)


def _null_law(blocks: Sequence[Block]) -> np.ndarray:
    """Probabilities of A's successes in one task, from the fewest possible on."""
    law = np.ones(1)
    equal = Counter((block.n_a, block.n_b, block.a + block.b) for block in blocks)
    for (n_a, n_b, m), count in sorted(equal.items()):
        least, most = max(0, m - n_b), min(m, n_a)
        if least == most:
            continue
        one = stats.hypergeom.pmf(np.arange(least, most + 1), n_a + n_b, m, n_a)
        law = _convolve(law, _power(one / one.sum(), count))
    return law


def _power(law: np.ndarray, count: int) -> np.ndarray:
    """The law of the sum of `count` independent draws."""
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


def _null_deviation(tasks: Mapping[str, TaskBlocks]) -> float:
    """Standard deviation of the difference if the arms are exchangeable in every block."""
    variance = 0.0
    for task in tasks.values():
        own = sum(_hypergeometric_variance(block) for block in task.blocks)
        variance += (1 / task.n_a + 1 / task.n_b) ** 2 * own
    return sqrt(variance) / len(tasks)


def _hypergeometric_variance(block: Block) -> float:
    total, m = block.n_a + block.n_b, block.a + block.b
    if total < 2:
        return 0.0
    return m * (total - m) * block.n_a * block.n_b / (total**2 * (total - 1))


def _deviation(tasks: Mapping[str, TaskBlocks]) -> float:
    """Standard deviation of the difference as estimated, with one scenario added in which only A,
    and one in which only B succeeds (without them the interval covers 92 % at 25 pairs)."""
    shared = [block for task in tasks.values() for block in task.shared]
    gaps = np.array([block.a / block.n_a - block.b / block.n_b for block in shared])
    square = (float(gaps @ gaps) + 2) / (len(gaps) + 2)
    spread = square - (float(gaps.sum()) / (len(gaps) + 2)) ** 2
    variance = 0.0
    for task in tasks.values():
        for block in task.shared:
            share = (block.n_a / task.n_a + block.n_b / task.n_b) / 2
            variance += share**2 * spread * len(gaps) / (len(gaps) + 2)
        if task.rest:
            variance += _share_variance(task.rest.a, task.rest.n_a, task.n_a)
            variance += _share_variance(task.rest.b, task.rest.n_b, task.n_b)
    return sqrt(variance) / len(tasks)


def _share_variance(successes: int, n: int, total: int) -> float:
    """Of the part that n of a task's `total` episodes have in its rate."""
    rate = (successes + 1) / (n + 2)
    return (n / total) ** 2 * rate * (1 - rate) / (n + 2)
