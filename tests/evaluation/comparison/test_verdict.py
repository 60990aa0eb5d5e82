"""The verdict of an ablation: what seeds allow to be said."""

from math import sqrt

import pytest

from foundry_core.errors import FoundryError
from foundry_core.evaluation.comparison.compare import compare
from foundry_core.evaluation.comparison.effect_rows import effects, seeds_of
from foundry_core.evaluation.comparison.report import write_comparison
from foundry_core.evaluation.comparison.result import read_comparison
from foundry_core.evaluation.comparison.sentences import verdict
from foundry_core.evaluation.comparison.verdict import judge_variants
from foundry_core.evaluation.score import Evaluation


def evaluation(*successes: int, n: int = 50) -> Evaluation:
    """One task per count; the first scenarios succeed."""
    outcomes = {f"t{i}": {s: s < count for s in range(n)} for i, count in enumerate(successes)}
    return Evaluation(budget=n, outcomes=outcomes)


def judged(seeds: dict[str, list[int]], n: int = 50, base: str = "a", **more):
    """seeds: variant → successes of each seed's evaluation."""
    evaluations = {
        f"{name}{i}": evaluation(count, n=n)
        for name, counts in seeds.items()
        for i, count in enumerate(counts)
    }
    variants = {name: [f"{name}{i}" for i in range(len(c))] for name, c in seeds.items()}
    return judge_variants(evaluations, variants, base, **more)


def test_one_seed_is_the_plain_comparison_and_no_word_about_recipes():
    found = judged({"a": [40], "b": [20]})
    plain = compare({"a": evaluation(40), "b": evaluation(20)}, "a")
    assert found.differences == plain.differences
    assert found.against_base("b").basis == "none"
    assert found.deviation is None
    assert "says nothing about the recipes" in verdict(found)


def test_two_seeds_are_provisional():
    found = judged({"a": [40, 41], "b": [20, 21]})
    assert found.against_base("b").basis == "provisional"
    assert found.against_base("b").decision == "worse"
    assert "provisional: it is worse than a if all variants' runs scatter alike" in verdict(found)


def test_three_seeds_are_a_verdict_about_recipes():
    found = judged({"a": [40, 42, 41], "b": [20, 21, 22]})
    one = found.against_base("b")
    assert (one.basis, one.decision) == ("recipe", "worse")
    assert one.p_value == max(one.p_episodes, one.p_seeds)
    assert "recipe “b” is worse than a on these tasks" in verdict(found)


def test_scatter_between_seeds_is_no_effect():
    """Pooled, these are 90 against 60 of 150 episodes."""
    found = judged({"a": [48, 20, 22], "b": [5, 45, 10]})
    one = found.against_base("b")
    assert one.p_episodes < 0.01
    assert one.p_value == one.p_seeds > 0.05
    assert one.decision == "not separated"


def test_tied_seeds_are_judged_by_the_episodes():
    """100/50/0 % against 100/100/0 % was "better, p = 1.6e-30"."""
    found = judged({"a": [50, 25, 0], "b": [50, 50, 0]}, base="a")
    assert found.against_base("b").decision == "not separated"
    tied = judged({"a": [30, 30, 30], "b": [26, 26, 26]})
    assert tied.against_base("b").p_seeds == 0.0
    assert tied.against_base("b").p_value == tied.against_base("b").p_episodes


def test_dropped_variants_still_count():
    alone = judged({"a": [40], "b": [31]})
    of_six = judged({"a": [40], "b": [31]}, size=6)
    p = alone.against_base("b").p_corrected
    assert of_six.against_base("b").p_corrected == pytest.approx(6 * p)
    assert of_six.size == 6


def test_known_spread():
    found = judged({"a": [20, 30]})
    assert found.deviation[0] == pytest.approx(sqrt(0.02))
    # Chi-square with one degree of freedom: 5.0239 and 0.000982 at 97.5 % and 2.5 %.
    assert found.deviation[1] == pytest.approx(sqrt(0.02 / 5.023886), rel=1e-4)
    assert found.deviation[2] == pytest.approx(sqrt(0.02 / 0.00098207), rel=1e-4)
    assert seeds_of(found)["rates"] == {"a": {"a0": 0.4, "a1": 0.6}}


def test_noise_floor_of_one_variant():
    found = judged({"a": [20, 24]})
    assert found.differences == []
    assert found.letters == {"a": "a"}


def test_effects_have_a_row_per_changed_path():
    found = effects(judged({"a": [40], "b": [20]}), {"b": [("m.width", 8, 4), ("m.depth", 2, 1)]})
    assert [(e.variant, e.path, e.old, e.new) for e in found] == [
        ("a", None, None, None),
        ("b", "m.width", 8, 4),
        ("b", "m.depth", 2, 1),
    ]
    assert found[1].decision == "worse than the base (these policies)"
    assert found[1].success == 0.4
    assert found[0].p_value is None


def test_everything_survives_the_file(tmp_path):
    found = judged({"a": [40, 42, 41], "b": [20, 21, 22]})
    metrics = write_comparison(tmp_path, found)
    assert read_comparison(tmp_path / "comparison.json") == found
    assert metrics["seed_deviation"] == found.deviation[0]
    assert metrics["success_a"] == pytest.approx(0.82)
    assert (tmp_path / "verdict.txt").read_text() == verdict(found) + "\n"


def test_variants_keep_the_order_in_which_they_are_given():
    found = judged({"base": [25], "steps=400": [25], "steps=1000": [25]}, base="base")
    assert found.labels == ["base", "steps=400", "steps=1000"]


def test_a_variant_without_its_evaluation_is_named():
    with pytest.raises(FoundryError, match="'small' has no evaluation gone"):
        judge_variants({"base": evaluation(1)}, {"base": ["base"], "small": ["gone"]}, "base")
