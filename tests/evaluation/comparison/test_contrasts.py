"""Main effects, interactions, trends: published and hand-computed values, and what is a grid."""

from itertools import product

import pytest

from foundry_core.evaluation.comparison.arms import Arm
from foundry_core.evaluation.comparison.contrasts import contrasts
from foundry_core.evaluation.comparison.factors import grids
from foundry_core.evaluation.comparison.verdict import judge_variants
from foundry_core.evaluation.score import Evaluation
from foundry_core.evaluation.statistics.recipes import _pooled, seed_contrast

# Montgomery, Design and Analysis of Experiments, the chemical process of chapter 6: concentration
# and catalyst at two levels each, three replicates.
PROCESS = {"low": (28, 25, 27), "a": (36, 32, 32), "b": (18, 19, 23), "ab": (31, 30, 29)}
MAIN_A = {"low": -0.5, "a": 0.5, "b": -0.5, "ab": 0.5}
MAIN_B = {"low": -0.5, "a": -0.5, "b": 0.5, "ab": 0.5}
BOTH = {"low": 1.0, "a": -1.0, "b": -1.0, "ab": 1.0}
GRID = {"low": {"a": 1, "b": 1}, "a": {"a": 2}, "b": {"b": 2}, "ab": {"a": 2, "b": 2}}
ORDERED = {"base": {"m.x": 8}, "x=2": {"m.x": 2}, "x=32": {"m.x": 32}}


def evaluation(*successes, n=20, crashed=0):
    """A task for each number; its first `crashed` scenarios crashed, the next ones succeeded."""
    outcomes = {
        f"task{task}": {at: None if at < crashed else at < crashed + many for at in range(n)}
        for task, many in enumerate(successes)
    }
    return Evaluation(budget=n, outcomes=outcomes)


def arm(name, *runs):
    return Arm(name, {f"{name}/{at}": one for at, one in enumerate(runs)})


def judged(settings, runs, base="low", tasks=("task0",)):
    """runs: variant → successes of each of its seeds, of 100 scenarios."""
    arms = {n: arm(n, *(evaluation(k, n=100) for k in many)) for n, many in runs.items()}
    return contrasts(arms, tasks, settings, base)


@pytest.mark.parametrize(
    ("weights", "estimate", "f", "p"),
    [
        (MAIN_A, 8.33, 53.15, 0.0001),
        (MAIN_B, -5.00, 19.13, 0.0024),
        (BOTH, 2 * 1.67, 2.13, 0.1826),
    ],
)
def test_effects_of_a_published_grid(weights, estimate, f, p):
    """With one variance for all cells the t-test of a weighted sum is the analysis of variance."""
    arms = [(weights[name], PROCESS[name]) for name in PROCESS]
    found, error, degrees = _pooled(arms, list(PROCESS.values()))
    assert seed_contrast(weights, PROCESS).difference == pytest.approx(estimate, abs=0.01)
    assert (seed_contrast(weights, PROCESS).difference / error) ** 2 == pytest.approx(f, abs=0.05)
    assert (degrees, found) == (8, pytest.approx(p, abs=2e-4))


def test_a_weighted_sum_of_two_is_welchs_test():
    """scipy.stats.ttest_ind(a, b, equal_var=False)"""
    found = seed_contrast({"a": 1, "b": -1}, {"a": (0.5, 0.54, 0.58), "b": (0.6, 0.66, 0.63)})
    assert found.p == pytest.approx(0.039452, abs=1e-6)


def test_a_table_says_what_each_setting_does():
    found = judged(GRID, PROCESS)
    rows = {one.text: one for one in found.contrasts}
    assert [(one.kind, round(100 * one.estimate, 2)) for one in rows.values()] == [
        ("main effect", 8.33),
        ("main effect", -5.0),
        ("interaction", 3.33),
    ]
    assert {one.size for one in rows.values()} == {3}
    assert rows["a: 1 → 2"].decision == "higher"
    assert rows["b: 1 → 2"].decision == "lower"
    both = rows["a: 1 → 2 × b: 1 → 2"]
    assert both.decision == "not separated"
    assert both.detectable > 0.05
    assert all(one.low < one.estimate < one.high for one in rows.values())
    assert not found.doses


def test_the_episodes_of_a_main_effect_are_swapped_within_the_other_setting():
    """Two strata of 8 scenarios, 4 against 1 and 4 against 0 alone: 5/128, as two tasks are."""

    def only(*scenarios):
        outcomes = {"task0": {at: at in scenarios for at in range(8)}}
        return Evaluation(budget=8, outcomes=outcomes)

    arms = {
        "low": arm("low", only(7)),
        "a": arm("a", only(0, 1, 2, 3)),
        "b": arm("b", only()),
        "ab": arm("ab", only(0, 1, 2, 3)),
    }
    found = contrasts(arms, ["task0"], GRID, "low").contrasts[0]
    assert found.p_value == pytest.approx(5 / 128)
    assert (found.basis, found.p_seeds, found.estimate) == ("none", None, 7 / 16)


def test_a_trend_over_seeds_its_curve_and_its_line():
    runs = {"base": (40, 44, 42), "x=2": (20, 24, 22), "x=32": (60, 64, 62)}
    found = judged(ORDERED, runs, base="base")
    (trend,) = found.contrasts
    assert (trend.kind, trend.text, trend.decision) == ("trend", "m.x: 2, 8, 32", "higher")
    assert trend.estimate == pytest.approx(0.40)
    assert trend.p_permutation == pytest.approx(2 / 1680)
    (dose,) = found.doses
    assert [point.value for point in dose.points] == [2, 8, 32]
    assert [round(point.rate, 3) for point in dose.points] == [0.22, 0.42, 0.62]
    assert [round(point.line, 3) for point in dose.points] == [0.22, 0.42, 0.62]
    assert dose.points[0].seeds == [0.20, 0.24, 0.22]
    # By hand: of the runs t(2) · .02 / √3 = .0497. Scenario by scenario 20 succeed always, 2 in two
    # runs of three, 2 in one; with one more that does and one that does not the variance is
    # 22.11 / 102 - (23 / 102)², a hundredth of it that of the rate: ± .0798, which is wider.
    assert dose.points[0].low == pytest.approx(0.22 - 0.0798, abs=1e-4)


def test_two_seeds_are_provisional_and_one_speaks_of_policies():
    two = judged(ORDERED, {"base": (40, 44), "x=2": (20, 24), "x=32": (60, 64)}, base="base")
    one = judged(ORDERED, {"base": (40,), "x=2": (20,), "x=32": (60,)}, base="base")
    assert [found.contrasts[0].basis for found in (two, one)] == ["provisional", "none"]


def test_crashes_that_could_turn_it_leave_no_verdict():
    def arms(crashed):
        return {
            "base": arm("base", evaluation(12, n=40, crashed=crashed)),
            "x=2": arm("x=2", evaluation(6, n=40)),
            "x=32": arm("x=32", evaluation(18, n=40)),
        }

    tests = [contrasts(arms(n), ["task0"], ORDERED, "base").contrasts[0] for n in (0, 8)]
    assert [one.decision for one in tests] == ["higher", "higher"]
    broken = arms(0) | {"x=2": arm("x=2", evaluation(6, n=40, crashed=20))}
    (turned,) = contrasts(broken, ["task0"], ORDERED, "base").contrasts
    assert turned.decision != "higher"


@pytest.mark.parametrize(
    ("settings", "paths"),
    [
        (GRID, [("a", "b")]),
        ({"base": {"a": 9, "b": 9}} | {k: v | {"a": v.get("a", 1), "b": v.get("b", 1)}
          for k, v in GRID.items()}, [("a", "b")]),
        ({k: GRID[k] for k in ("low", "a", "ab")}, []),
        (ORDERED, [("m.x",)]),
        ({"base": {"m.x": "s"}, "one": {"m.x": "t"}, "two": {"m.x": "u"}}, []),
        ({**GRID, "other": {"a": 1, "b": 1, "c": 2}, "low": {"a": 1, "b": 1, "c": 1}},
         [("a", "b")]),
    ],
    ids=["2 × 2", "the base outside", "a corner is missing", "order", "names", "one more"],
)  # fmt: skip
def test_what_is_a_grid(settings, paths):
    base = "base" if "base" in settings else "low"
    assert [tuple(f.path for f in one.factors) for one in grids(settings, base)] == paths


def test_a_mixed_grid_asks_for_the_trend_of_numbers_and_every_name():
    settings = {"base": {"n": 1, "kind": "flow"}}
    for n, kind in product((1, 2, 4), ("flow", "act", "bins")):
        if (n, kind) != (1, "flow"):
            settings[f"{n}{kind}"] = {"n": n, "kind": kind}
    runs = dict.fromkeys(settings, (50, 52, 51))
    found = judged(settings, runs, base="base").contrasts
    assert [one.text for one in found] == [
        "kind: flow → act",
        "kind: flow → bins",
        "n: 1, 2, 4",
        "kind: flow → act × n: 1, 2, 4",
        "kind: flow → bins × n: 1, 2, 4",
    ]
    assert {one.decision for one in found} == {"not separated"}


def test_a_verdict_has_them_and_an_unfinished_one_has_none():
    found = {f"{n}/{s}": evaluation(k, n=100) for n, runs in PROCESS.items()
             for s, k in enumerate(runs)}  # fmt: skip
    variants = {name: [f"{name}/{s}" for s in range(3)] for name in PROCESS}
    judged_ = judge_variants(found, variants, "low", settings=GRID)
    assert len(judged_.contrasts) == 3
    assert len(judged_.to_json()["contrasts"]) == 3
    assert not judge_variants(found, variants, "low").contrasts
    open_ = {**found, "a/0": Evaluation(budget=200, outcomes=found["a/0"].outcomes)}
    assert not judge_variants(open_, variants, "low", settings=GRID).contrasts
