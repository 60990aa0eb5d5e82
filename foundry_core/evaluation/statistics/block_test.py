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
from functools import cached_property, lru_cache
from itertools import groupby
from math import comb, sqrt

import numpy as np

from foundry_core.errors import FoundryError
from foundry_core.evaluation.statistics.intervals import check_counts
from foundry_core.evaluation.statistics.laws import convolve, integer_weights, power, tails

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

    @cached_property
    def counted(self) -> Counter[Block]:
        """The shared blocks, how often each: with few seeds there are few kinds."""
        found: Counter[Block] = Counter()
        for block, run in groupby(self.shared):  # equal ones lie together mostly
            found[block] += len(list(run))
        return found

    @cached_property
    def blocks(self) -> list[tuple[Block, int]]:
        """All blocks with their number."""
        return [*self.counted.items(), *([(self.rest, 1)] if self.rest else [])]

    @cached_property
    def n_a(self) -> int:
        return sum(count * block.n_a for block, count in self.blocks)

    @cached_property
    def n_b(self) -> int:
        return sum(count * block.n_b for block, count in self.blocks)

    @cached_property
    def a(self) -> int:
        return sum(count * block.a for block, count in self.blocks)

    @cached_property
    def b(self) -> int:
        return sum(count * block.b for block, count in self.blocks)

    @cached_property
    def kinds(self) -> "Counter[Kind]":
        """What the null law depends on, and how often."""
        found: Counter[Kind] = Counter()
        for block, count in self.blocks:
            found[block.n_a, block.n_b, block.a + block.b] += count
        return found


Kind = tuple[int, int, int]  # episodes of A, of B, successes of both


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
    both = a.keys() & b.keys()
    kinds = Counter(
        zip(map(tuple, map(a.__getitem__, both)), map(tuple, map(b.__getitem__, both)), strict=True)
    )
    alone_a = [outcome for scenario in a.keys() - both for outcome in a[scenario]]
    alone_b = [outcome for scenario in b.keys() - both for outcome in b[scenario]]
    shared: list[Block] = []
    for (of_a, of_b), count in sorted(kinds.items()):
        if of_a and of_b:
            shared += [_block(of_a, of_b)] * count
        else:
            alone_a += of_a * count
            alone_b += of_b * count
    rest = _block(alone_a, alone_b) if alone_a and alone_b else None
    return TaskBlocks(shared=tuple(shared), rest=rest) if shared or rest else None


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
    weights = integer_weights([1 / task.n_a + 1 / task.n_b for task in tasks.values()])
    seen = sum(
        weight * (task.a - _least(task.blocks))
        for weight, task in zip(weights, tasks.values(), strict=True)
    )
    laws = _null_laws(list(tasks.values()), weights)
    lower, upper = tails(laws, seen)
    if mid:
        at = (upper - tails(laws, seen + 1)[1]) / 2
        lower, upper = lower - at, upper - at
    pairs = sum(len(task.shared) for task in tasks.values())
    difference = float(np.mean([one.a / one.n_a - one.b / one.n_b for one in tasks.values()]))
    deviation = _deviation(tasks)
    centre = difference * (1 - 2 / (pairs + 2)) if pairs else difference
    return BlockTest(
        difference=difference,
        p=min(1.0, 2 * max(min(upper, lower), 0.0)),
        low=max(-1.0, centre - _Z95 * deviation),
        high=min(1.0, centre + _Z95 * deviation),
        deviation=deviation,
        null_deviation=_null_deviation(tasks),
        tasks=tuple(tasks),
        pairs=pairs,
        discordant=sum(
            count
            for task in tasks.values()
            for block, count in task.counted.items()
            if block.a * block.n_b != block.b * block.n_a
        ),
        unpaired=sum(task.rest.n_a + task.rest.n_b for task in tasks.values() if task.rest),
    )


def _least(blocks: Sequence[tuple[Block, int]]) -> int:
    """The fewest successes of A that these blocks allow: where their law begins."""
    return sum(count * max(0, block.a + block.b - block.n_b) for block, count in blocks)


def _null_laws(tasks: Sequence[TaskBlocks], weights: Sequence[int]) -> dict[int, np.ndarray]:
    """weight → probabilities of A's successes in the tasks of this weight, from the fewest possible
    on. Equal blocks of equal weight are one power, whatever their tasks."""
    kinds: dict[int, Counter[Kind]] = {}
    for task, weight in zip(tasks, weights, strict=True):
        kinds.setdefault(weight, Counter()).update(task.kinds)
    laws = {}
    for weight, counted in sorted(kinds.items()):
        laws[weight] = np.ones(1)
        for (n_a, n_b, m), count in sorted(counted.items()):
            if max(0, m - n_b) < min(m, n_a):
                blocks = power(_hypergeometric(n_a, n_b, m), count)
                laws[weight] = convolve(laws[weight], blocks)
    return laws


@lru_cache(maxsize=1024)
def _hypergeometric(n_a: int, n_b: int, m: int) -> np.ndarray:
    """Probabilities of A's successes in one block, in whole numbers until the last division."""
    ways = comb(n_a + n_b, m)
    counts = range(max(0, m - n_b), min(m, n_a) + 1)
    return np.array([comb(n_a, k) * comb(n_b, m - k) / ways for k in counts])


def _null_deviation(tasks: Mapping[str, TaskBlocks]) -> float:
    """Standard deviation of the difference if the arms are exchangeable in every block."""
    variance = 0.0
    for task in tasks.values():
        own = sum(count * _hypergeometric_variance(block) for block, count in task.blocks)
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
    gaps = [
        (block.a / block.n_a - block.b / block.n_b, count)
        for task in tasks.values()
        for block, count in task.counted.items()
    ]
    pairs = sum(count for _, count in gaps)
    square = (sum(count * gap**2 for gap, count in gaps) + 2) / (pairs + 2)
    spread = square - (sum(count * gap for gap, count in gaps) / (pairs + 2)) ** 2
    variance = 0.0
    for task in tasks.values():
        for block, count in task.counted.items():
            share = (block.n_a / task.n_a + block.n_b / task.n_b) / 2
            variance += count * share**2 * spread * pairs / (pairs + 2)
        if task.rest:
            variance += _share_variance(task.rest.a, task.rest.n_a, task.n_a)
            variance += _share_variance(task.rest.b, task.rest.n_b, task.n_b)
    return sqrt(variance) / len(tasks)


def _share_variance(successes: int, n: int, total: int) -> float:
    """Of the part that n of a task's `total` episodes have in its rate."""
    rate = (successes + 1) / (n + 2)
    return (n / total) ** 2 * rate * (1 - rate) / (n + 2)
