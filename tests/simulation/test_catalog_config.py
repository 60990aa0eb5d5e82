"""The catalogue fits the installed Meta-World; configs refuse what cannot be drawn."""

import pytest
from pydantic import ValidationError

from foundry_core.errors import FoundryError
from foundry_core.simulation.catalog import TASK_SETS, TASKS
from foundry_core.simulation.config import RenderConfig, known_tasks
from foundry_core.simulation.scenarios import (
    BLOCK,
    MAX_RETRIES,
    MAX_SLOTS,
    check_evaluation,
    demonstration_scenario,
    scene_scenario,
)


def test_every_task_has_an_environment_and_an_expert():
    from foundry_core.simulation.backend import load_mujoco

    load_mujoco()
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS
    from metaworld.policies import ENV_POLICY_MAP

    assert set(TASKS) == set(ALL_V3_ENVIRONMENTS) == set(ENV_POLICY_MAP)
    assert len(TASKS) == 50
    assert {name: len(tasks) for name, tasks in TASK_SETS.items()} == {
        "mini": 4,
        "mt10": 10,
        "mt50": 50,
    }
    assert all(set(tasks) <= set(TASKS) for tasks in TASK_SETS.values())


def test_the_ten_are_metaworlds_own():
    from metaworld.env_dict import MT10_V3

    assert set(TASK_SETS["mt10"]) == set(MT10_V3)


def texts_of(spec):
    return (spec.original, spec.held_out, *spec.randomized)


def test_no_two_tasks_share_an_instruction():
    said = [text for spec in TASKS.values() for text in texts_of(spec)]
    assert len(set(said)) == len(said)
    assert all(len(spec.randomized) >= 4 for spec in TASKS.values())


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ({"cameras": ("scen",)}, "scene"),
        ({"cameras": ("scene", "scene")}, "twice"),
        ({"size": 512, "supersample": 3}, "1024"),
        ({"sise": 64}, "sise"),
    ],
)
def test_render_config_refuses(bad, reason):
    with pytest.raises(ValidationError, match=reason):
        RenderConfig(**bad)


def test_known_tasks_names_the_nearest():
    with pytest.raises(ValueError, match="lever-pull-v3"):
        known_tasks(("lever-pul-v3",))
    with pytest.raises(ValueError, match="twice"):
        known_tasks(("lever-pull-v3", "lever-pull-v3"))


def test_scenarios_of_different_uses_never_meet():
    extremes = [
        {demonstration_scenario(seed, slot, retry)}
        for seed in (0, 1)
        for slot in (0, MAX_SLOTS - 1)
        for retry in (0, 1, MAX_RETRIES - 1)
    ]
    extremes += [{scene_scenario(seed, slot)} for seed in (0, 1) for slot in (0, BLOCK // 2 - 1)]
    merged = set().union(*extremes)
    assert len(merged) == len(extremes)
    assert min(merged) == BLOCK
    check_evaluation(BLOCK - 10, 10)
    for first, count in ((BLOCK - 10, 11), (-1, 1)):
        with pytest.raises(FoundryError, match="scenarios"):
            check_evaluation(first, count)
    with pytest.raises(FoundryError, match="slot"):
        demonstration_scenario(0, MAX_SLOTS, 0)
