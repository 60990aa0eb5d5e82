"""A verdict over parts: which it takes, and that nothing but its inputs decides."""

from types import SimpleNamespace

import pytest

from foundry_core.errors import FoundryError
from foundry_core.evaluation.comparison.result import read_comparison
from foundry_core.evaluation.score import Evaluation, write_evaluation
from foundry_core.pipeline.stage import Upstream
from tasks.evaluate import EvaluateRecipe
from tasks.evaluate_control import EvaluateControlRecipe
from tasks.verdict import STAGE, VerdictRecipe

RACE = {"design": {"looks": 2, "spending": "linear"}, "rounds": 20}


def recipe(**variants):
    return VerdictRecipe(base="base", variants=variants, race=RACE)


def checked(found, control=None, **connected):
    """label=(first scenario, episodes)"""
    upstream = {
        label: Upstream(
            name=label,
            kind="evaluate",
            recipe=EvaluateRecipe(first_scenario=first, episodes_per_task=episodes),
        )
        for label, (first, episodes) in connected.items()
    }
    controls = {}
    if control:
        first, episodes = control
        asked = EvaluateControlRecipe(first_scenario=first, episodes_per_task=episodes)
        controls["still"] = Upstream(name="still", kind="evaluate_control", recipe=asked)
    STAGE.check(found, {"evaluations": upstream, "controls": controls})


def run(tmp_path, found, rates):
    """rates: label → (successes of ten, first scenario). What the stage writes."""
    inputs = {}
    for label, (rate, first) in rates.items():
        outcomes = {"open": {at: at % 10 < rate for at in range(first, first + 10)}}
        folder = tmp_path / label
        part = Evaluation(budget=10, outcomes=outcomes)
        write_evaluation(folder, folder / "records", part)
        inputs[label] = SimpleNamespace(path=folder)
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    STAGE.run(SimpleNamespace(inputs={"evaluations": inputs}, recipe=found, out=out))
    return (out / "comparison.json").read_bytes(), read_comparison(out / "comparison.json")


def test_parts_follow_each_other():
    variants = recipe(base=("b1", "b2"), bad=("x1",))
    checked(variants, b1=(5, 10), b2=(15, 10), x1=(5, 10))
    with pytest.raises(FoundryError, match="b2 is evaluated with first_scenario = 14, not 15"):
        checked(variants, b1=(5, 10), b2=(14, 10), x1=(5, 10))
    with pytest.raises(FoundryError, match="x1 is evaluated with episodes_per_task = 9, not 10"):
        checked(variants, b1=(5, 10), b2=(15, 10), x1=(5, 9))
    with pytest.raises(FoundryError, match="a variant has 3 parts, the design 2 looks"):
        long = recipe(base=("b1", "b2", "b3"), bad=("x1",))
        checked(long, b1=(0, 10), b2=(10, 10), b3=(20, 10), x1=(0, 10))


def test_a_control_plays_the_scenarios_of_all_parts():
    variants, parts = recipe(base=("b1", "b2"), bad=("x1",)), {"b1": (5, 10), "x1": (5, 10)}
    checked(variants, control=(5, 20), b2=(15, 10), **parts)
    with pytest.raises(
        FoundryError, match="still is evaluated with episodes_per_task = 10, not 20"
    ):
        checked(variants, control=(5, 10), b2=(15, 10), **parts)


def test_one_level():
    with pytest.raises(ValueError, match=r"alpha 0.01 is not 0.05 of the design"):
        VerdictRecipe(base="base", variants={"base": ("b1",)}, race=RACE, alpha=0.01)


def test_the_race_is_recomputed_from_the_inputs_alone(tmp_path):
    found = recipe(base=("b1",), bad=("x1",))
    rates = {"b1": (10, 0), "x1": (0, 0)}
    first, judged = run(tmp_path, found, rates)
    assert run(tmp_path, found, rates)[0] == first
    assert judged.against_base("bad").decision == "worse"
    assert judged.sequential.stopped == {"base": 1, "bad": 1}


def test_parts_that_contradict_the_race_fail(tmp_path):
    with pytest.raises(FoundryError, match="stops after 1 parts"):
        run(tmp_path, recipe(base=("b1",), same=("x1",)), {"b1": (9, 0), "x1": (9, 0)})
    extra = {"b1": (10, 0), "b2": (10, 10), "x1": (0, 0)}
    with pytest.raises(FoundryError, match="'base' has 2 parts"):
        run(tmp_path, recipe(base=("b1", "b2"), bad=("x1",)), extra)
