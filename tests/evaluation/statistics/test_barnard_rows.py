"""Barnard's test for many episodes: the same p-value by another road."""

import time

import numpy as np
import pytest
from scipy import stats

from foundry_core.evaluation.statistics.fixed import Arms, barnard, barnard_by_rows


def test_known_value():
    arms = Arms(s1=7, n1=10, s0=2, n0=10)
    assert barnard_by_rows(arms, "greater") == pytest.approx(0.020695, abs=1e-5)


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
@pytest.mark.parametrize(("s1", "n1", "s0", "n0"), [(30, 50, 20, 45), (12, 40, 25, 40)])
def test_the_largest_chance_over_all_common_rates_is_found(s1, n1, s0, n0, alternative):
    # Every table, at 2,000 rates. (scipy's search may stop 1.5 % below the maximum.)
    arms = Arms(s1=s1, n1=n1, s0=s0, n0=n0)
    a, b = np.meshgrid(np.arange(n1 + 1), np.arange(n0 + 1), indexing="ij")
    seen, all_ = wald(s1, n1, s0, n0), wald(a, n1, b, n0)
    extreme = {
        "two-sided": abs(all_) >= abs(seen) - 1e-9,
        "greater": all_ >= seen - 1e-9,
        "less": all_ <= seen + 1e-9,
    }[alternative]
    largest = max(
        stats.binom.pmf(a[:, 0], n1, p) @ extreme @ stats.binom.pmf(b[0], n0, p)
        for p in np.linspace(0.0005, 0.9995, 2000)
    )
    found = barnard_by_rows(arms, alternative)
    assert found == pytest.approx(largest, rel=1e-4)
    assert found >= barnard(arms, alternative) * 0.999


def wald(s1, n1, s0, n0):
    pooled = np.asarray((s1 + s0) / (n1 + n0))
    spread = np.sqrt(pooled * (1 - pooled) * (1 / n1 + 1 / n0))
    return np.where(spread > 0, (s1 / n1 - s0 / n0) / np.where(spread > 0, spread, 1), 0.0)


def test_both_arms_are_alike():
    one = barnard_by_rows(Arms(s1=300, n1=700, s0=260, n0=700))
    other = barnard_by_rows(Arms(s1=260, n1=700, s0=300, n0=700))
    assert one == pytest.approx(other, rel=1e-9)


def test_thousands_of_episodes_take_seconds():
    started = time.monotonic()
    p = barnard(Arms(s1=1760, n1=3200, s0=1600, n0=3200))
    assert p == pytest.approx(6.35e-5, rel=0.01)
    assert time.monotonic() - started < 20
