"""Sample sizes against known values, and against what the test itself does in simulation."""

import random

import pytest

from foundry_core.errors import FoundryError
from foundry_core.evaluation.statistics.power import (
    Question,
    fixed_episodes,
    fixed_power,
    sequential_design,
    sequential_power,
)
from foundry_core.evaluation.statistics.sequential import SequentialDesign, build_table, decide


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path))


def test_known_values_of_the_two_proportion_formula():
    # R: power.prop.test(p1 = .50, p2 = .75, power = .90) n = 76.7; n = 50 gives power 0.740.
    assert fixed_episodes(Question(base=0.5, variant=0.75, power=0.9)) == 77
    assert fixed_power(Question(base=0.5, variant=0.75), 50) == pytest.approx(0.740, abs=5e-4)
    # R: power.prop.test(p1 = .50, p2 = .70, power = .80) n = 93.0.
    assert fixed_episodes(Question(base=0.5, variant=0.7)) == 93


def test_power_and_size_are_inverse():
    question = Question(base=0.8, variant=0.65, power=0.9, comparisons=3)
    n = fixed_episodes(question)
    assert fixed_power(question, n - 1) < 0.9 <= fixed_power(question, n)


def test_more_comparisons_and_shaky_seeds_cost_episodes():
    plain = fixed_episodes(Question(base=0.5, variant=0.7))
    assert fixed_episodes(Question(base=0.5, variant=0.7, comparisons=3)) > plain
    assert fixed_episodes(Question(base=0.5, variant=0.7, design_effect=2)) == pytest.approx(
        2 * plain, abs=1
    )


def test_sequential_power_is_what_simulation_finds():
    question = Question(base=0.4, variant=0.8)
    found = sequential_power(question, 30)
    table = build_table(SequentialDesign(n_max=30, alpha=0.05))
    source = random.Random(1)
    decisions = []
    for _ in range(2000):
        base = [source.random() < 0.4 for _ in range(30)]
        variant = [source.random() < 0.8 for _ in range(30)]
        decisions.append(decide(table, base, variant))
    right = sum(d.direction == 1 for d in decisions) / 2000
    assert found.power == pytest.approx(right, abs=0.04)
    assert found.expected == pytest.approx(sum(d.pairs for d in decisions) / 2000, abs=0.8)
    assert found.expected < found.expected_if_equal <= 30


def test_sequential_design_reaches_the_power_and_saves_episodes():
    question = Question(base=0.3, variant=0.8)
    found = sequential_design(question)
    assert found.power >= 0.8
    assert found.expected < fixed_episodes(question)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"variant": 0.5}, "no number of episodes"),
        ({"variant": 1.5}, "no success rate"),
        ({"variant": 0.6, "power": 1.0}, "strictly between"),
        ({"variant": 0.6, "comparisons": 0}, "at least 1"),
    ],
)
def test_questions_without_an_answer_are_refused(wrong, words):
    with pytest.raises(FoundryError, match=words):
        Question(base=0.5, **wrong)


def test_what_would_take_hours_to_compute_is_refused_at_once():
    with pytest.raises(FoundryError, match="800 pairs") as refused:
        sequential_design(Question(base=0.6, variant=0.65))
    assert "1471 episodes per arm" in refused.value.hint
