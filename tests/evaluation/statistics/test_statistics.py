"""Intervals, tests for pairs, strata, families and optional stopping, against known values."""

import subprocess
import sys

import numpy as np
import pytest
from scipy import special, stats

from foundry_core.errors import FoundryError
from foundry_core.evaluation.statistics.evalues import anytime_p, directed_evalues, evalues
from foundry_core.evaluation.statistics.families import bonferroni, compact_letters, holm
from foundry_core.evaluation.statistics.fixed import Arms, barnard, cmh, discordant, mcnemar
from foundry_core.evaluation.statistics.intervals import clopper_pearson


def test_evalues_of_straight_pairs():
    found = directed_evalues([False] * 6, [True] * 6)
    n = np.arange(1, 7)
    assert found == pytest.approx(4.0**n * (2 / (n + 2)) ** 2)
    assert found == pytest.approx([1.7778, 4, 10.24, 28.444, 83.592, 256], rel=1e-4)


def test_an_anytime_p_is_the_best_so_far_and_symmetric():
    base, tested = [False] * 8 + [True] * 3, [True] * 8 + [False] * 3
    assert anytime_p(base, tested) == pytest.approx(1 / evalues(base, tested)[7])
    assert anytime_p(base, tested) == pytest.approx(anytime_p(tested, base))
    assert anytime_p([], []) == 1.0
    with pytest.raises(FoundryError, match="equally many"):
        evalues([True], [])


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_looking_after_every_pair_errs_no_more_often_than_alpha(rate):
    draws = np.random.default_rng(0).random((400, 2, 100)) < rate
    errors = sum(anytime_p(base, tested) <= 0.05 for base, tested in draws)
    assert errors <= stats.binom.ppf(0.999, 400, 0.05)


def test_discordant_pairs_count_only_scenarios_that_both_ran():
    tested, base = {0: True, 1: True, 2: False, 7: True}, {0: False, 1: True, 2: True, 9: False}
    assert discordant(tested, base) == (1, 1)
    assert mcnemar(9, 1, "greater") == pytest.approx(11 / 1024)
    assert mcnemar(5, 0) == pytest.approx(2 * 0.5**5)
    assert mcnemar(0, 0) == 1.0


def test_cmh_of_one_stratum_is_the_chi_square_test():
    arms = Arms(s1=17, n1=25, s0=9, n0=25)
    table = [[arms.s1, arms.n1 - arms.s1], [arms.s0, arms.n0 - arms.s0]]
    for continuity in (False, True):
        expected = stats.chi2_contingency(table, correction=continuity).statistic * 49 / 50
        found = cmh([arms], continuity=continuity)
        assert found.statistic == pytest.approx(expected)
        assert found.p == pytest.approx(stats.chi2.sf(expected, 1))
    assert found.odds_ratio == pytest.approx(17 * 16 / (8 * 9))


def test_cmh_sees_through_tasks_of_other_sizes():
    """Simpson: equal rates within each task, 70/100 against 40/100 when counts are pooled."""
    easy, hard = Arms(s1=64, n1=80, s0=16, n0=20), Arms(s1=4, n1=20, s0=16, n0=80)
    found = cmh([easy, hard], continuity=False)
    assert found.p == pytest.approx(1.0)
    assert found.odds_ratio == pytest.approx(1.0)
    assert cmh([Arms(s1=0, n1=5, s0=0, n0=5)]).p == 1.0


@pytest.mark.parametrize(
    ("successes", "n", "confidence", "interval"),
    [
        (145, 200, 0.90, (0.668265, 0.776667)),
        (0, 200, 0.90, (0, 0.014867)),
        (160, 200, 0.95, (0.737774, 0.853106)),
    ],
)
def test_clopper_pearson(successes, n, confidence, interval):
    assert clopper_pearson(successes, n, confidence) == pytest.approx(interval, abs=1e-6)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 25, 100, 333, 3999, 4000, 4001, 50_000])
def test_clopper_pearson_is_the_quantile_of_beta_that_scipy_has(n):
    for successes in sorted({0, 1, 2, n // 3, n // 2, n - 1, n} & set(range(n + 1))):
        low, high = clopper_pearson(successes, n)
        wanted = special.betaincinv([successes or 1, successes + 1], [n - successes + 1,
                                    (n - successes) or 1], [0.025, 0.975])  # fmt: skip
        assert low == pytest.approx(wanted[0] if successes else 0, abs=1e-12)
        assert high == pytest.approx(wanted[1] if successes < n else 1, abs=1e-12)


@pytest.mark.parametrize("confidence", [0.5, 0.95, 1 - 1e-9])
def test_clopper_pearson_where_nothing_or_all_succeeded_has_a_closed_form(confidence):
    for n in (1, 4, 60, 5000):
        least = ((1 - confidence) / 2) ** (1 / n)
        assert clopper_pearson(n, n, confidence) == (pytest.approx(least, rel=1e-12), 1)
        assert clopper_pearson(0, n, confidence) == (0, pytest.approx(1 - least, abs=1e-13))


def test_the_interval_of_a_usual_exam_needs_no_scipy():
    code = (
        "import sys; from foundry_core.evaluation.statistics.intervals import clopper_pearson as c;"
        "print(c(87, 100)); sys.exit('scipy' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_barnard():
    assert barnard(Arms(s1=7, n1=10, s0=2, n0=10), "greater") == pytest.approx(0.020695, abs=1e-6)


def test_families():
    assert bonferroni([0.01, 0.4]) == pytest.approx([0.02, 0.8])
    assert bonferroni([0.01, 0.4], size=5) == pytest.approx([0.05, 1.0])
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    ten = [0.001, 0.008, 0.039, 0.041, 0.042, 0.06, 0.074, 0.205, 0.212, 0.216]
    assert holm(ten) == pytest.approx([0.01, 0.072] + 5 * [0.312] + 3 * [0.615])
    pairs = [("a", "c"), ("a", "d"), ("b", "d")]
    assert compact_letters("abcd", pairs) == {"a": "a", "b": "ab", "c": "bc", "d": "c"}
