"""The verdict of an ablation: pooled seeds, the design effect, the noise floor."""

from math import sqrt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundry_core.errors import FoundryError
from foundry_core.evaluation.comparison.compare import compare
from foundry_core.evaluation.comparison.verdict import effects, judge, seed_spread


def cells(*successes: int, n: int = 50) -> dict[str, dict[str, int]]:
    """One task per count."""
    return {f"t{i}": {"n": n, "successes": s, "crashed": 0} for i, s in enumerate(successes)}


def test_one_seed_is_the_plain_comparison():
    evaluations = {"base": cells(40), "small": cells(20)}
    judged = judge(evaluations, {"base": ["base"], "small": ["small"]}, "base")
    plain = compare(evaluations, "base")
    assert {key: judged[key] for key in plain} == plain
    assert judged["seeds"]["unit"] == "episodes"
    assert judged["seeds"]["deviation"] is None
    assert judged["letters"] == {"base": "a", "small": "b"}


def test_known_spread_and_design_effect():
    # Rates .4 and .6 over 50 episodes each: variance .02; binomial .5 * .5 / 50 = .005.
    spread = seed_spread({"base": [cells(20), cells(30)]}, ["t0"])
    assert spread["degrees"] == 1
    assert spread["deviation"] == pytest.approx(sqrt(0.02))
    assert spread["binomial"] == pytest.approx(sqrt(0.005))
    assert spread["dispersion"] == pytest.approx(4.0)
    assert spread["repeatable"] == pytest.approx(1.959964 * sqrt(2) * sqrt(0.02))
    # Chi-square with one degree of freedom: 5.0239 and 0.000982 at 97.5 % and 2.5 %.
    assert spread["low"] == pytest.approx(sqrt(0.02 / 5.023886), rel=1e-4)
    assert spread["high"] == pytest.approx(sqrt(0.02 / 0.00098207), rel=1e-4)


def test_seeds_that_disagree_make_the_test_more_careful():
    steady = {"a0": cells(30), "a1": cells(30), "b0": cells(20), "b1": cells(20)}
    shaky = {"a0": cells(40), "a1": cells(20), "b0": cells(30), "b1": cells(10)}
    groups = {"a": ["a0", "a1"], "b": ["b0", "b1"]}
    sure, unsure = judge(steady, groups, "a"), judge(shaky, groups, "a")
    assert sure["pooled"]["a"]["n"] == unsure["pooled"]["a"]["n"] == 100
    assert sure["against_base"]["b"]["difference"] == pytest.approx(0.2)
    assert unsure["against_base"]["b"]["difference"] == pytest.approx(0.2)
    assert sure["seeds"]["design_effect"] == 1.0
    assert unsure["seeds"]["design_effect"] > 4
    assert sure["against_base"]["b"]["decision"] == "worse than the base"
    assert unsure["against_base"]["b"]["decision"] == "not separated from the base"
    width = [j["pooled"]["a"]["high"] - j["pooled"]["a"]["low"] for j in (sure, unsure)]
    assert width[1] > 1.8 * width[0]


def test_tasks_of_different_difficulty_are_no_spread_between_seeds():
    spread = seed_spread({"base": [cells(50, 0), cells(50, 0)]}, ["t0", "t1"])
    assert spread["deviation"] == 0
    assert spread["design_effect"] == 1.0


def test_noise_floor_of_one_variant():
    judged = judge({"s0": cells(20), "s1": cells(24)}, {"base": ["s0", "s1"]}, "base")
    assert judged["against_base"] == {}
    assert judged["seeds"]["unit"] == "seeds"
    assert [r["rate"] for r in judged["seeds"]["replicates"]["base"]] == [0.4, 0.48]


def test_effects_have_a_row_per_changed_path():
    evaluations = {"base": cells(40), "small": cells(20)}
    judged = judge(evaluations, {"base": ["base"], "small": ["small"]}, "base")
    found = effects(judged, {"small": [("m.width", 8, 4), ("m.depth", 2, 1)]})
    assert [(r["variant"], r["path"], r["old"], r["new"]) for r in found] == [
        ("base", None, None, None),
        ("small", "m.width", 8, 4),
        ("small", "m.depth", 2, 1),
    ]
    assert found[1]["decision"] == "worse than the base"
    assert found[1]["success"] == 0.4
    assert found[0]["p_value"] is None


def test_a_variant_without_its_evaluation_is_named():
    with pytest.raises(FoundryError, match="'small' has no evaluation gone"):
        judge({"base": cells(1)}, {"base": ["base"], "small": ["gone"]}, "base")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 20), min_size=2, max_size=6), st.randoms(use_true_random=False))
def test_order_of_seeds_does_not_matter(successes, random):
    shuffled = list(successes)
    random.shuffle(shuffled)
    first, second = (
        seed_spread({"v": [cells(s, n=20) for s in order]}, ["t0"])
        for order in (successes, shuffled)
    )
    assert first == pytest.approx(second)
    assert first["design_effect"] >= 1
