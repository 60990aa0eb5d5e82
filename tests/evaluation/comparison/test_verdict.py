"""The verdict of an ablation: pooled seeds, the design effect, the noise floor."""

from dataclasses import asdict, replace
from math import sqrt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foundry_core.errors import FoundryError
from foundry_core.evaluation.comparison.compare import compare
from foundry_core.evaluation.comparison.report import write_comparison
from foundry_core.evaluation.comparison.result import read_comparison
from foundry_core.evaluation.comparison.verdict import effects, judge, seed_spread
from foundry_core.evaluation.score import Score


def scores(*successes: int, n: int = 50) -> dict[str, Score]:
    """One task per count."""
    return {f"t{i}": Score(n=n, successes=s) for i, s in enumerate(successes)}


def test_one_seed_is_the_plain_comparison():
    evaluations = {"base": scores(40), "small": scores(20)}
    judged = judge(evaluations, {"base": ["base"], "small": ["small"]}, "base")
    plain = compare(evaluations, "base")
    assert replace(judged, seeds=None) == plain
    assert judged.seeds.unit == "episodes"
    assert judged.seeds.deviation is None
    assert judged.letters == {"base": "a", "small": "b"}


def test_known_spread_and_design_effect():
    # Rates .4 and .6 over 50 episodes each: variance .02; binomial .5 * .5 / 50 = .005.
    spread = seed_spread({"base": [scores(20), scores(30)]}, ["t0"])
    assert spread.degrees == 1
    assert spread.deviation == pytest.approx(sqrt(0.02))
    assert spread.binomial == pytest.approx(sqrt(0.005))
    assert spread.dispersion == pytest.approx(4.0)
    assert spread.repeatable == pytest.approx(1.959964 * sqrt(2) * sqrt(0.02))
    # Chi-square with one degree of freedom: 5.0239 and 0.000982 at 97.5 % and 2.5 %.
    assert spread.low == pytest.approx(sqrt(0.02 / 5.023886), rel=1e-4)
    assert spread.high == pytest.approx(sqrt(0.02 / 0.00098207), rel=1e-4)


def test_seeds_that_disagree_make_the_test_more_careful():
    steady = {"a0": scores(30), "a1": scores(30), "b0": scores(20), "b1": scores(20)}
    shaky = {"a0": scores(40), "a1": scores(20), "b0": scores(30), "b1": scores(10)}
    groups = {"a": ["a0", "a1"], "b": ["b0", "b1"]}
    sure, unsure = judge(steady, groups, "a"), judge(shaky, groups, "a")
    assert sure.pooled["a"].counted.n == unsure.pooled["a"].counted.n == 100
    assert sure.against_base["b"].difference == pytest.approx(0.2)
    assert unsure.against_base["b"].difference == pytest.approx(0.2)
    assert sure.seeds.design_effect == 1.0
    assert unsure.seeds.design_effect > 4
    assert sure.against_base["b"].decision == "worse than the base"
    assert unsure.against_base["b"].decision == "not separated from the base"
    width = [high - low for j in (sure, unsure) for low, high in [j.pooled["a"].interval]]
    assert width[1] > 1.8 * width[0]


def test_tasks_of_different_difficulty_are_no_spread_between_seeds():
    spread = seed_spread({"base": [scores(50, 0), scores(50, 0)]}, ["t0", "t1"])
    assert spread.deviation == 0
    assert spread.design_effect == 1.0


def test_noise_floor_of_one_variant():
    judged = judge({"s0": scores(20), "s1": scores(24)}, {"base": ["s0", "s1"]}, "base")
    assert judged.against_base == {}
    assert judged.seeds.unit == "seeds"
    assert [score.rate for score in judged.seeds.replicates["base"].values()] == [0.4, 0.48]


def test_effects_have_a_row_per_changed_path():
    evaluations = {"base": scores(40), "small": scores(20)}
    judged = judge(evaluations, {"base": ["base"], "small": ["small"]}, "base")
    found = effects(judged, {"small": [("m.width", 8, 4), ("m.depth", 2, 1)]})
    assert [(e.variant, e.path, e.old, e.new) for e in found] == [
        ("base", None, None, None),
        ("small", "m.width", 8, 4),
        ("small", "m.depth", 2, 1),
    ]
    assert found[1].decision == "worse than the base"
    assert found[1].success == 0.4
    assert found[0].p_value is None


def test_what_was_counted_and_what_was_tested_survive_the_file(tmp_path):
    shaky = {"a0": scores(40), "a1": scores(20), "b0": scores(30), "b1": scores(10)}
    judged = judge(shaky, {"b": ["b0", "b1"], "a": ["a0", "a1"]}, "a")
    metrics = write_comparison(tmp_path, judged)
    read = read_comparison(tmp_path / "comparison.json")
    assert read == judged
    assert read.pooled["a"].counted == Score(n=100, successes=60)
    assert read.pooled["a"].tested.n < 25
    assert metrics["design_effect"] == judged.seeds.design_effect
    assert metrics["seed_deviation"] == judged.seeds.deviation


def test_variants_keep_the_order_in_which_they_are_given():
    evaluations = {name: scores(25) for name in ("base", "steps=400", "steps=1000")}
    judged = judge(evaluations, {name: [name] for name in evaluations}, "base")
    assert judged.labels == ["base", "steps=400", "steps=1000"]


def test_a_variant_without_its_evaluation_is_named():
    with pytest.raises(FoundryError, match="'small' has no evaluation gone"):
        judge({"base": scores(1)}, {"base": ["base"], "small": ["gone"]}, "base")


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 20), min_size=2, max_size=6), st.randoms(use_true_random=False))
def test_order_of_seeds_does_not_matter(successes, random):
    shuffled = list(successes)
    random.shuffle(shuffled)
    first, second = (
        seed_spread({"v": [scores(s, n=20) for s in order]}, ["t0"])
        for order in (successes, shuffled)
    )
    one, other = asdict(first), asdict(second)
    assert one.pop("replicates") == other.pop("replicates")
    assert one == pytest.approx(other)
    assert first.design_effect >= 1
