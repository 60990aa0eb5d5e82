"""The sequential test of two rates: level by listing every outcome, stop times, power."""

from itertools import product

import numpy as np
import pytest

from foundry_core.errors import FoundryError
from foundry_core.evaluation.statistics.sequential import (
    SequentialDesign,
    build_table,
    decide,
    stopping,
)

SPENDINGS = ["linear", "obrien-fleming", "pocock"]


@pytest.mark.parametrize("spending", SPENDINGS)
def test_the_level_over_every_outcome_of_five_pairs(spending):
    """1024 outcomes, weighed by a common rate: at most alpha in total, and `stopping` agrees."""
    alpha, pairs = 0.2, 5
    table = build_table(SequentialDesign(n_max=pairs, alpha=alpha, spending=spending))
    outcomes = list(product([False, True], repeat=2 * pairs))
    separated = np.array([decide(table, o[:pairs], o[pairs:]).direction for o in outcomes])
    successes = np.array([sum(o) for o in outcomes])
    for rate in (0.02, 0.1, 0.3, 0.5, 0.8, 0.97):
        chance = rate**successes * (1 - rate) ** (2 * pairs - successes)
        level = float(chance[separated != 0].sum())
        assert level <= alpha
        up, down = stopping(table, rate, rate)
        assert (up.sum(), down.sum()) == pytest.approx((level / 2, level / 2), rel=1e-9)
    assert (separated != 0).any()


@pytest.mark.parametrize(
    ("n_max", "two_sided", "first"),
    [(50, False, 4), (200, False, 5), (50, True, 5), (200, True, 6)],
)
def test_straight_pairs_stop_as_soon_as_they_may(n_max, two_sided, first):
    """n pairs of failure and success have a chance of at most 4^-n among equal arms (rate 1/2).
    With even spending they separate as soon as that is within the n / n_max of a direction's alpha
    that may be spent."""
    share = 0.05 / (2 if two_sided else 1) / n_max
    assert first == next(n for n in range(1, n_max) if 4.0**-n <= n * share)
    design = SequentialDesign(n_max=n_max, spending="linear", two_sided=two_sided)
    found = decide(build_table(design), [False] * 15, [True] * 15)
    assert (found.direction, found.pairs) == (1, first)


# Snyder et al. (STEP, 2025) publish the stop times of two tasks' 50 pairs, each direction at .05:
# 8 and 19 pairs of a budget of 50, 9 and 21 of 200. Their outcomes are not at hand. These are made
# for the purpose: they show that one sequence can stop at both times here, not that theirs do.
PUBLISHED = [
    ("000001000", "011111111", 8, 9),
    ("000000000001010101000", "000000011111111111111", 19, 21),
]


@pytest.mark.parametrize(("base", "tested", "of_50", "of_200"), PUBLISHED)
def test_published_stop_times_are_those_of_some_outcomes(base, tested, of_50, of_200):
    x, y = ([mark == "1" for mark in marks] for marks in (base, tested))
    for n_max, pairs in ((50, of_50), (200, of_200)):
        table = build_table(SequentialDesign(n_max=n_max, spending="linear", two_sided=False))
        forth, back = decide(table, x, y), decide(table, y, x)
        assert (forth.direction, forth.pairs) == (1, pairs)
        assert (back.direction, back.pairs) == (-1, pairs)


def test_what_the_default_spending_gains_and_costs():
    """.5 against .7 within 100 pairs, alpha .05 in total; and how long a clear case takes."""
    power, clear = {}, {}
    for spending in SPENDINGS:
        table = build_table(SequentialDesign(n_max=100, spending=spending))
        power[spending] = float(stopping(table, 0.5, 0.7)[0].sum())
        up, down = stopping(table, 0.3, 0.8)
        clear[spending] = float((up + down) @ np.arange(101)) + 100 * (1 - (up + down).sum())
    assert SequentialDesign(n_max=100).spending == "obrien-fleming"
    assert power == pytest.approx(
        {"linear": 0.749, "obrien-fleming": 0.800, "pocock": 0.721}, abs=5e-4
    )
    assert clear == pytest.approx(
        {"linear": 18.1, "obrien-fleming": 28.8, "pocock": 16.9}, abs=0.05
    )


def test_a_budget_cannot_be_extended():
    table = build_table(SequentialDesign(n_max=5))
    with pytest.raises(FoundryError, match="planned for at most 5"):
        decide(table, [True] * 6, [True] * 6)
    with pytest.raises(FoundryError, match="equally many"):
        decide(table, [True], [])
