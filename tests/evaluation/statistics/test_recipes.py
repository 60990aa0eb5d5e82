"""The whole rule on simulated tables, and t-tests by their known values."""

import numpy as np
import pytest
from scipy import stats

from foundry_core.evaluation.statistics.block_test import Block, TaskBlocks, exact_test
from foundry_core.evaluation.statistics.recipes import _pooled, seed_test

POOLED = [
    ((0.50, 0.54), (0.62, 0.68), 0.069051),
    ((0.50, 0.54), (0.70, 0.71), 0.012191),
    ((0.50, 0.54, 0.58), (0.60, 0.66, 0.63), 0.035606),
    ((0.40, 0.52, 0.55), (0.62, 0.70, 0.66), 0.029577),
    ((0.50, 0.55, 0.52, 0.58), (0.60, 0.66, 0.63, 0.61), 0.007212),
    ((0.50, 0.55, 0.62, 0.58), (0.60, 0.66, 0.63, 0.61), 0.071091),
    ((0.30, 0.42, 0.35, 0.51, 0.44), (0.52, 0.61, 0.40, 0.66, 0.58), 0.031495),
]


@pytest.mark.parametrize(("a", "b", "p"), POOLED)
def test_pooled_t(a, b, p):
    assert _pooled([(1.0, a), (-1.0, b)], [a, b])[0] == pytest.approx(p, abs=5e-7)


@pytest.mark.parametrize(("a", "b", "p"), POOLED[:2])
def test_two_seeds_borrow_the_variance_and_stay_provisional(a, b, p):
    found = seed_test(a, b, {"a": a, "b": b})
    assert found.basis == "provisional"
    assert found.p == pytest.approx(p, abs=5e-7)
    assert found.degrees == 2


@pytest.mark.parametrize(("a", "b", "pooled"), POOLED[2:])
def test_three_seeds_are_judged_by_welch(a, b, pooled):
    found = seed_test(a, b, {"a": a, "b": b})
    assert found.basis == "recipe"
    assert found.degrees < 2 * len(a) - 2
    # With equally many runs the statistic is the pooled one's, on fewer degrees of freedom.
    assert found.p > pooled
    assert found.p == pytest.approx(stats.ttest_ind(a, b, equal_var=False).pvalue, rel=1e-9)


def test_one_seed_makes_no_claim_about_recipes():
    found = seed_test((0.9,), (0.1, 0.2, 0.15), {})
    assert (found.basis, found.p, found.half_width()) == ("none", None, None)


def test_seeds_that_do_not_scatter_leave_the_verdict_to_the_episodes():
    tied = (0.75, 0.75, 0.75)
    assert seed_test(tied, (0.5, 0.5, 0.5), {}).p == 0.0
    assert seed_test(tied, tied, {}).p == 1.0


def test_a_table_lends_its_variance_to_two_seeds():
    a, b, noisy = (0.50, 0.54), (0.62, 0.68), (0.2, 0.9)
    assert seed_test(a, b, {"a": a, "b": b, "c": noisy}).p > seed_test(a, b, {"a": a, "b": b}).p


def test_unequal_numbers_take_the_larger_p():
    few, many = (0.50, 0.80, 0.55), (0.70, 0.71, 0.69, 0.70, 0.72)
    swapped = seed_test(many, few, {})
    assert seed_test(few, many, {}).p == pytest.approx(swapped.p)
    assert swapped.p >= 0.05


@pytest.mark.parametrize(
    ("seeds", "tasks", "n", "spread", "seed", "expected"),
    [
        (2, 4, 25, 0.1, 11, (178, 26, 22)),
        (3, 4, 25, 0.1, 12, (189, 22, 21)),
        (5, 4, 25, 0.1, 13, (163, 19, 19)),
        (2, 49, 2, 0.1, 14, (189, 25, 18)),
        (3, 1, 50, 0.0, 15, (14, 8, 2)),
    ],
)
def test_the_whole_rule_on_500_tables(seeds, tasks, n, spread, seed, expected):
    """Rejections at 5 % among equal recipes by the episodes, by the runs, by both: episodes alone
    call scatter between seeds an effect in every third table."""
    rng = np.random.default_rng(seed)
    found = [0, 0, 0]
    for _ in range(500):
        arms = []
        for _ in range(2):
            rates = np.clip(0.6 + spread * rng.standard_normal(seeds), 0.02, 0.98)
            arms.append(rng.random((seeds, tasks, n)) < rates[:, None, None])
        a, b = (arm.sum(axis=0) for arm in arms)
        blocks = {
            str(t): TaskBlocks(
                shared=tuple(
                    Block(n_a=seeds, a=int(x), n_b=seeds, b=int(y))
                    for x, y in zip(a[t], b[t], strict=True)
                )
            )
            for t in range(tasks)
        }
        episodes = exact_test(blocks).p
        runs = [tuple(arm.mean(axis=(1, 2))) for arm in arms]
        by_seed = seed_test(runs[0], runs[1], {"a": runs[0], "b": runs[1]}).p
        for at, p in enumerate((episodes, by_seed, max(episodes, by_seed))):
            found[at] += p <= 0.05
    assert tuple(found) == expected
