"""The exact trend test: laws counted by hand and by listing every labelling."""

from itertools import combinations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundry_core.evaluation.statistics.block_test import Block, TaskBlocks, exact_test
from foundry_core.evaluation.statistics.trend import (
    Levels,
    permutation_p,
    rise_weights,
    trend_test,
)


def block(*levels):
    """Each level as 'successes/episodes'."""
    counts = [tuple(map(int, text.split("/"))) for text in levels]
    return Levels(n=tuple(n for _, n in counts), successes=tuple(s for s, _ in counts))


def listed(blocks):
    """p over all choices of which episodes of a block succeed, each as likely."""
    laws = []
    for one in blocks:
        scores = [at for at, n in enumerate(one.n) for _ in range(n)]
        laws.append([sum(c) for c in combinations(scores, sum(one.successes))])
    sums = [sum(parts) for parts in product(*laws)]
    seen = sum(at * s for one in blocks for at, s in enumerate(one.successes))
    low, high = sum(x <= seen for x in sums), sum(x >= seen for x in sums)
    return min(1.0, 2 * min(low, high) / len(sums))


def test_two_scenarios_at_three_values_by_hand():
    # One success among three: 0, 1, 2, a third each; two: 1, 2, 3. Both highest: 1/9, twice.
    found = trend_test({"t": [block("0/1", "0/1", "1/1"), block("0/1", "1/1", "1/1")]})
    assert found.p == pytest.approx(2 / 9)
    assert found.direction == 1
    assert found.null_deviation == pytest.approx((2 / 3 + 2 / 3) ** 0.5)


def test_it_falls_where_the_lowest_value_does_best():
    assert trend_test({"t": [block("3/3", "1/3", "0/3")]}).direction == -1


counts = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 2)).map(lambda two: (min(two), max(two))),
    min_size=3,
    max_size=3,
)


@settings(max_examples=40, deadline=None)
@given(st.lists(counts, min_size=1, max_size=3))
def test_any_blocks_agree_with_listing(found):
    blocks = [
        Levels(n=tuple(n for _, n in one), successes=tuple(s for s, _ in one)) for one in found
    ]
    assert trend_test({"t": blocks}).p == pytest.approx(listed(blocks))


def test_two_values_are_the_block_test():
    pairs = [Block(n_a=1, a=a, n_b=1, b=b) for a, b in [(1, 0)] * 8 + [(0, 1)] * 2 + [(1, 1)] * 10]
    blocks = [Levels(n=(1, 1), successes=(one.b, one.a)) for one in pairs]
    expected = exact_test({"t": TaskBlocks(shared=tuple(pairs))}).p
    assert trend_test({"t": blocks}).p == pytest.approx(expected)
    assert expected == pytest.approx(7 / 64)


def test_a_large_block_does_not_overflow():
    assert trend_test({"t": [block("100/400", "200/400", "300/400")]}).p < 1e-12


def test_nothing_to_swap_says_nothing():
    assert trend_test({}).p == 1
    assert trend_test({"t": [block("1/1", "1/1", "1/1")]}).p == 1


@pytest.mark.parametrize(
    ("rates", "p"),
    [
        ([[1], [2], [3]], 2 / 6),
        ([[1, 2], [3, 4], [5, 6]], 2 / 90),
        ([[1, 2, 3], [4, 5, 6], [7, 8, 9]], 2 / 1680),
        ([[1, 2, 3], [4, 5, 6], [7, 8, 9], [10, 11, 12]], 2 / 369600),
        ([[1, 1], [1, 1]], 1.0),
    ],
)
def test_permutation_of_runs(rates, p):
    assert permutation_p(rates) == pytest.approx(p)


def test_too_many_assignments_are_not_listed():
    assert permutation_p([[0.1] * 5] * 5) is None
    assert permutation_p([[0.1]]) is None


def test_the_rise_of_a_straight_line_is_its_last_value_less_its_first():
    for count in (2, 3, 4, 7):
        weights = rise_weights(count)
        assert sum(weights) == pytest.approx(0)
        line = [0.2 + 0.05 * at for at in range(count)]
        rise = sum(w * y for w, y in zip(weights, line, strict=True))
        assert rise == pytest.approx(line[-1] - line[0])
