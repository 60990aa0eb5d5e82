"""Known values by brute force over all labellings, in fractions."""

from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundry_core.errors import FoundryError
from foundry_core.evaluation.statistics.block_test import (
    Block,
    TaskBlocks,
    block_test,
    exact_test,
    task_blocks,
)


def pairs(only_a: int, only_b: int, n: int, both: int = 0) -> tuple[Block, ...]:
    def one(a: int, b: int) -> Block:
        return Block(n_a=1, a=a, n_b=1, b=b)

    neither = n - only_a - only_b - both
    return (
        *[one(1, 0)] * only_a,
        *[one(0, 1)] * only_b,
        *[one(1, 1)] * both,
        *[one(0, 0)] * neither,
    )


def shared(*counts: int) -> TaskBlocks:
    return TaskBlocks(shared=pairs(*counts))


def alone(a: int, n_a: int, b: int, n_b: int) -> TaskBlocks:
    return TaskBlocks(shared=(), rest=Block(n_a=n_a, a=a, n_b=n_b, b=b))


def seeds(a: list[int], b: list[int], runs_a: int, runs_b: int) -> TaskBlocks:
    return TaskBlocks(
        shared=tuple(Block(n_a=runs_a, a=x, n_b=runs_b, b=y) for x, y in zip(a, b, strict=True))
    )


KNOWN = [
    ([shared(5, 0, 10)], "1/2", "1/16"),
    ([shared(6, 0, 10)], "3/5", "1/32"),
    ([shared(8, 2, 20)], "3/10", "7/64"),
    ([shared(10, 2, 20)], "2/5", "79/2048"),
    ([shared(4, 1, 8), shared(4, 0, 8)], "7/8", "5/128"),
    ([shared(5, 1, 8), shared(2, 0, 4)], "1", "7/128"),
    ([shared(4, 0, 6), shared(1, 2, 3)], "1/3", "13/16"),
    ([alone(7, 10, 2, 10)], "1/2", "293/4199"),
    ([alone(4, 5, 1, 5), alone(5, 6, 2, 6)], "11/10", "233/8316"),
    ([alone(6, 8, 1, 5)], "11/20", "74/429"),
    (
        [TaskBlocks(shared=pairs(4, 1, 8, both=2), rest=Block(n_a=4, a=3, n_b=3, b=0))],
        "21/44",
        "3/40",
    ),
    ([seeds([2, 2, 1, 2, 2, 1, 0, 2], [0, 1, 1, 0, 1, 0, 0, 2], 2, 2)], "7/16", "1/54"),
    ([seeds([3, 3, 2, 3, 1, 3], [1, 0, 1, 2, 0, 1], 3, 2)], "5/12", "4/125"),
]


@pytest.mark.parametrize(("tasks", "difference", "p"), KNOWN)
def test_known_values(tasks, difference, p):
    found = exact_test({f"task{number}": task for number, task in enumerate(tasks)})
    assert found.difference * len(tasks) == pytest.approx(float(Fraction(difference)), abs=1e-12)
    assert found.p == pytest.approx(float(Fraction(p)), rel=1e-10)


def test_mid_p_is_smaller_by_half_the_observed_probability():
    found = exact_test({"task": shared(10, 2, 20)}, mid=True)
    assert found.p == pytest.approx(0.0224609375, rel=1e-10)


def test_unbalanced_evaluations_of_equal_rates_are_not_separated():
    """Easy 90 % and hard 10 % for both; one finished mostly easy scenarios, the other hard ones.
    Pooled, that is 83 % against 17 %."""
    easy_a = {i: [i % 10 != 0] for i in range(200)}
    hard_a = {i: [i % 10 == 0] for i in range(20)}
    easy_b = {i: [i % 10 != 0] for i in range(20)}
    hard_b = {i: [i % 10 == 0] for i in range(200)}
    found = block_test({"easy": easy_a, "hard": hard_a}, {"easy": easy_b, "hard": hard_b})
    assert found.p == pytest.approx(1.0)
    assert found.difference == pytest.approx(0.0)


def test_pairing_finds_what_pooled_counts_miss():
    """112 against 100 successes on the same 200 scenarios, nested: 12 discordant, all one way."""
    a = {i: [i < 112] for i in range(200)}
    b = {i: [i < 100] for i in range(200)}
    found = block_test({"task": a}, {"task": b})
    assert found.p == pytest.approx(2 * 0.5**12, rel=1e-10)
    assert (found.pairs, found.discordant) == (200, 12)


def test_episodes_without_a_partner_form_one_block_per_task():
    found = task_blocks({0: [True], 1: [True], 2: [False]}, {0: [False], 7: [False]})
    assert found == TaskBlocks(
        shared=(Block(n_a=1, a=1, n_b=1, b=0),), rest=Block(n_a=2, a=1, n_b=1, b=0)
    )
    assert task_blocks({0: [True], 1: [True]}, {0: [False]}).rest is None
    assert task_blocks({}, {0: [True]}) is None


def test_no_common_task_is_an_error():
    with pytest.raises(FoundryError, match="no task with episodes of both"):
        block_test({"a": {0: [True]}}, {"b": {0: [True]}})


counts = st.integers(1, 3)


@st.composite
def blocks(draw) -> Block:
    n_a, n_b = draw(counts), draw(counts)
    return Block(n_a=n_a, a=draw(st.integers(0, n_a)), n_b=n_b, b=draw(st.integers(0, n_b)))


def brute_force(task: TaskBlocks) -> Fraction:
    """Every choice of which episodes of a block are A's, equally likely. One task: the statistic
    is A's successes."""
    laws = []
    for block in task.shared:
        episodes = [1] * (block.a + block.b) + [0] * (block.n_a + block.n_b - block.a - block.b)
        law: dict[int, int] = {}
        for labels in product((0, 1), repeat=len(episodes)):
            if sum(labels) == block.n_a:
                total = sum(e for e, label in zip(episodes, labels, strict=True) if label)
                law[total] = law.get(total, 0) + 1
        size = sum(law.values())
        laws.append({total: Fraction(count, size) for total, count in law.items()})
    total = {0: Fraction(1)}
    for law in laws:
        wider: dict[int, Fraction] = {}
        for x, p in total.items():
            for y, q in law.items():
                wider[x + y] = wider.get(x + y, Fraction(0)) + p * q
        total = wider
    seen = sum(block.a for block in task.shared)
    upper = sum(p for x, p in total.items() if x >= seen)
    lower = sum(p for x, p in total.items() if x <= seen)
    return min(Fraction(1), 2 * min(upper, lower))


@settings(max_examples=60, deadline=None)
@given(st.lists(blocks(), min_size=1, max_size=4))
def test_equals_brute_force(found):
    task = TaskBlocks(shared=tuple(found))
    assert exact_test({"task": task}).p == pytest.approx(float(brute_force(task)), rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(blocks(), min_size=1, max_size=6), min_size=1, max_size=4))
def test_swapping_the_arms_turns_the_difference_and_keeps_p(tasks):
    forth = {str(i): TaskBlocks(shared=tuple(t)) for i, t in enumerate(tasks)}
    back = {
        name: TaskBlocks(
            shared=tuple(Block(n_a=b.n_b, a=b.b, n_b=b.n_a, b=b.a) for b in task.shared)
        )
        for name, task in forth.items()
    }
    one, other = exact_test(forth), exact_test(back)
    assert one.p == pytest.approx(other.p, rel=1e-9)
    assert one.difference == pytest.approx(-other.difference)
    assert one.low == pytest.approx(-other.high)


def test_large_tables_by_fourier_transform_agree_with_direct_sums(monkeypatch):
    rng = np.random.default_rng(3)
    tasks = {
        str(t): seeds(list(rng.binomial(4, 0.5, 20 + t)), list(rng.binomial(3, 0.55, 20 + t)), 4, 3)
        for t in range(5)
    }
    direct = exact_test(tasks).p
    monkeypatch.setattr("foundry_core.evaluation.statistics.laws._DIRECT", 0)
    assert exact_test(tasks).p == pytest.approx(direct, abs=1e-12)
