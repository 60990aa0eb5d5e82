"""The smallest differences of verdicts that were computed by exact recursion and by simulation."""

import pytest

from foundry_core.evaluation.statistics.detectable import (
    contrast_difference,
    difference_by_deviation,
    paired_difference,
    pooled_factor,
    welch_factor,
)


@pytest.mark.parametrize(
    ("pairs", "share", "expected"),
    [
        (50, 0.3, 0.219),
        (200, 0.1, 0.0640),
        (200, 0.3, 0.1112),
        (200, 0.5, 0.1434),
        (1000, 0.3, 0.0493),
    ],
)
def test_paired(pairs, share, expected):
    assert paired_difference(pairs, share) == pytest.approx(expected, abs=6e-4)
    by_normal = difference_by_deviation((share / pairs) ** 0.5)
    assert 0.965 * expected <= by_normal <= expected


def test_too_few_pairs_can_separate_nothing():
    assert paired_difference(5, 0.4) is None
    assert paired_difference(0, 0.4) is None
    assert paired_difference(50, 0.0) is None


@pytest.mark.parametrize(
    ("seeds", "factors"),
    [
        (3, (3.51, 5.23, 6.75)),
        (4, (2.52, 3.33, 3.93)),
        (5, (2.09, 2.63, 3.01)),
        (10, (1.33, 1.59, 1.74)),
    ],
)
def test_welch(seeds, factors):
    for comparisons, factor in zip((1, 3, 6), factors, strict=True):
        assert welch_factor(seeds, 0.05 / comparisons) == pytest.approx(factor, abs=0.02)


@pytest.mark.parametrize(
    ("runs", "degrees", "alpha", "factor"),
    [
        (2, 2, 0.05, 5.65),
        (2, 2, 0.05 / 3, 9.82),
        (2, 4, 0.05 / 3, 5.12),
        (2, 7, 0.05 / 6, 4.67),
        (3, 4, 0.05, 3.07),
        (5, 8, 0.05, 2.02),
    ],
)
def test_pooled(runs, degrees, alpha, factor):
    assert pooled_factor(runs, runs, degrees, alpha) == pytest.approx(factor, abs=0.01)


@pytest.mark.parametrize("seeds", [3, 5])
def test_any_weighted_sum_by_its_t_test(seeds):
    """Of two arms it is the pooled t-test's: 3.07 and 2.02 deviations."""
    found = contrast_difference((2 / seeds) ** 0.5, 2 * seeds - 2)
    assert found == pytest.approx({3: 3.07, 5: 2.02}[seeds], abs=0.01)
