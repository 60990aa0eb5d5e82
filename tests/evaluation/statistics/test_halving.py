"""Who goes on from rung to rung, and what a verdict about whoever was chosen is worth."""

import numpy as np
import pytest

from foundry_core.errors import FoundryError
from foundry_core.evaluation.statistics.fixed import mcnemar
from foundry_core.evaluation.statistics.halving import best, rung_sizes

TASKS, SCENARIOS, VARIANTS, SEARCHES = 4, 25, 16, 500


def test_a_third_goes_on_until_the_finalists_are_left():
    assert rung_sizes(27, 4, 3, 1) == [27, 9, 3, 1]
    assert rung_sizes(16, 3, 3, 1) == [16, 6, 2]
    assert rung_sizes(16, 4, 4, 3) == [16, 4, 3, 3]
    assert rung_sizes(5, 1, 2, 5) == [5]
    with pytest.raises(FoundryError, match="6 finalists of 5"):
        rung_sizes(5, 1, 2, 6)
    with pytest.raises(FoundryError, match="reduction = 1"):
        rung_sizes(5, 2, 1, 1)


def test_the_best_by_rate_then_by_order_and_never_one_without():
    rates = {"a": 0.5, "b": None, "c": 0.7, "d": 0.5}
    assert best(rates, 2) == ("c", "a")
    assert best(rates, 9) == ("c", "a", "d")


def test_only_scenarios_on_which_nobody_was_chosen_keep_the_error():
    """Sixteen policies that are as good as the base: the one that did best on some scenarios is
    called better in many tables of the same scenarios, and in no more than alpha of others."""
    rng = np.random.default_rng(7)
    same, fresh = [], []
    for _ in range(SEARCHES):
        played = rng.random((1 + VARIANTS, TASKS * SCENARIOS)) < 0.5
        rates = {str(n): float(played[n].mean()) for n in range(1, 1 + VARIANTS)}
        (chosen,) = best(rates, 1)
        same.append(p_value(played[0], played[int(chosen)]) <= 0.05)
        fresh.append(p_value(*(rng.random((2, TASKS * SCENARIOS)) < 0.5)) <= 0.05)
    assert np.mean(same) > 0.1
    assert np.mean(fresh) < 0.05 + 2 * np.sqrt(0.05 * 0.95 / SEARCHES)


def p_value(base, variant):
    return mcnemar(int((variant & ~base).sum()), int((base & ~variant).sum()))
