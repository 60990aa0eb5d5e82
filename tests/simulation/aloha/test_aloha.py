"""ALOHA commanded by the poses of both hands: what it means, and an expert that solves the cube."""

import importlib.util

import numpy as np
import pytest

from foundry_core.config.validation import validate
from foundry_core.data.robot.poses import absolute_pose, relative_pose
from foundry_core.errors import FoundryError
from foundry_core.evaluation.benchmarks.base import load_benchmark
from foundry_core.simulation.aloha.config import SIDES, AlohaScene
from foundry_core.simulation.collection import CollectDemosRecipe, CollectJob
from foundry_core.simulation.demonstrations import pack

SMALL = {"control": "poses", "height": 48, "width": 64}
needed = pytest.mark.skipif(
    importlib.util.find_spec("gym_aloha") is None, reason="the extra `aloha` is not installed"
)


def test_twenty_numbers_are_commanded_and_fourteen_as_published():
    for control, count in (("poses", 20), ("joints", 14)):
        benchmark = load_benchmark("aloha", {"control": control})
        assert sum(field.dims for field in benchmark.commands.values()) == count
        contract = benchmark.contract()
        assert contract.commands == benchmark.commands
        assert contract.observes == benchmark.observes
    poses = load_benchmark("aloha", {"control": "poses"}).commands
    rotation = poses["robot__action__poses__left::vx300s__rot_6d"]
    assert (rotation.form, rotation.frame) == ("rot6d_rows", "world")


def test_the_expert_has_one_task_and_one_control():
    recipe = {"tasks": ["transfer_cube"], "expert": {"kind": "aloha"}}
    expert = validate(CollectDemosRecipe, recipe, "recipe").expert
    expert.check_tasks(["transfer_cube"])
    with pytest.raises(FoundryError, match="no expert for 'insertion'"):
        expert.check_tasks(["insertion"])
    with pytest.raises(FoundryError, match="no task 'transfer_cub'"):
        expert.check_tasks(["transfer_cub"])
    joints = expert.model_copy(update={"scene": AlohaScene()})
    with pytest.raises(FoundryError, match="the expert commands poses"):
        joints.check_tasks(["transfer_cube"])
    assert set(expert.data_contract().fields) == {
        *load_benchmark("aloha", SMALL).observes,
        *load_benchmark("aloha", SMALL).commands,
    }


@needed
@pytest.mark.slow("plays whole episodes in a real simulator")
def test_the_measured_pose_is_the_simulators():
    from foundry_core.simulation.aloha.simulator import AlohaSimulator

    simulator = AlohaSimulator("transfer_cube", AlohaScene(**SMALL))
    simulator.reset(0)
    simulator.wander(20, np.random.default_rng(0))
    measured = simulator.lowdim()
    for side in SIDES:
        xyz, rot6d = simulator.hand(side)
        pose = f"robot__actual__poses__{side}::vx300s"
        np.testing.assert_allclose(measured[f"{pose}__xyz"], xyz, atol=1e-4)
        np.testing.assert_allclose(measured[f"{pose}__rot_6d"], rot6d, atol=1e-3)


@needed
@pytest.mark.slow("plays whole episodes in a real simulator")
def test_the_expert_hands_the_cube_over_through_relative_normalised_targets():
    """What a policy does to a target: relative to the measured pose, float32 in normal units, and
    back."""
    from foundry_core.simulation.aloha.expert import Expert
    from foundry_core.simulation.aloha.simulator import AlohaSimulator

    simulator = AlohaSimulator("transfer_cube", AlohaScene(**SMALL))
    solved = 0
    for scenario in range(4):
        simulator.reset(scenario)
        expert = Expert(simulator)
        while not simulator.success and simulator.steps < 400:
            targets, measured = expert.targets(simulator.steps), simulator.lowdim()
            for side in SIDES:
                names = [f"poses__{side}::vx300s__{part}" for part in ("xyz", "rot_6d")]
                here = [measured[f"robot__actual__{name}"] for name in names]
                wanted = [targets[f"robot__action__{name}"] for name in names]
                there = relative_pose(*wanted, *here)
                scaled = [np.float32(part / 0.05).astype(float) * 0.05 for part in there]
                back = absolute_pose(*scaled, *here)
                targets |= {f"robot__action__{n}": v for n, v in zip(names, back, strict=True)}
            simulator.command_fields(targets)
        solved += simulator.success
    assert solved == 4


@needed
@pytest.mark.slow("plays whole episodes in a real simulator")
def test_a_demonstration_repeats_its_bytes_and_its_targets_solve_the_task():
    from foundry_core.simulation.aloha.simulator import AlohaSimulator

    recipe = validate(
        CollectDemosRecipe,
        {"tasks": ["transfer_cube"], "expert": {"kind": "aloha", "scene": SMALL}},
        "recipe",
    )
    jobs = [CollectJob(task="transfer_cube", slot=n, seed=0, recipe=recipe) for n in (2, 3)]
    demonstration = recipe.expert.record(jobs[0])
    data = pack(demonstration)
    wandered = recipe.expert.record(jobs[1])
    assert pack(recipe.expert.record(jobs[0])) == data
    assert (demonstration.wandered, demonstration.attempts) == (0, 1)
    assert wandered.wandered > 0
    simulator = AlohaSimulator("transfer_cube", AlohaScene(**SMALL))
    simulator.reset(demonstration.scenario)
    for step in range(demonstration.length):
        fields = demonstration.fields
        for name, value in simulator.lowdim().items():
            np.testing.assert_array_equal(value, fields[name][step])
        simulator.command_fields({n: v[step] for n, v in fields.items() if "__action__" in n})
    assert simulator.success
    assert len(demonstration.images["top"]) == demonstration.length
