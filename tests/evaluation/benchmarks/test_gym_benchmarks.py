"""Push-T and ALOHA on the real packages, where they are installed: repeatable, in the words of the
ready mappings, and solved by what solves them."""

import importlib.util

import numpy as np
import pytest

from foundry_core.data.mapping.config import RobotMapping, load_mapping
from foundry_core.errors import FoundryError
from foundry_core.evaluation.benchmarks.base import load_benchmark
from foundry_core.evaluation.rollout.controls import Control
from foundry_core.evaluation.rollout.episodes import plan_episodes, run_episodes

PACKAGES = {"pusht": "gym_pusht", "aloha": "gym_aloha"}
OPTIONS = {
    "pusht": {"max_steps": 20},
    "aloha": {"max_steps": 20, "height": 48, "width": 64},
}
TASKS = [("pusht", "pusht"), ("aloha", "transfer_cube"), ("aloha", "insertion")]


def needs(name: str) -> None:
    if importlib.util.find_spec(PACKAGES[name]) is None:
        pytest.skip(f"the extra `{name}` is not installed")


@pytest.mark.parametrize("name", PACKAGES)
def test_its_fields_are_those_of_the_ready_mapping(name):
    fields = RobotMapping(**load_mapping(name)).fields
    benchmark = load_benchmark(name)
    assert set(fields) == {*benchmark.observes, *benchmark.commands}
    for field, stated in {**benchmark.observes, **benchmark.commands}.items():
        first, end = fields[field].dims or (0, stated.dims)
        assert stated.dims == end - first


@pytest.mark.parametrize("name", PACKAGES)
def test_without_the_package_one_line_says_what_to_install(name, monkeypatch):
    import sys

    for module in ("gym_pusht.envs.pusht", "gym_aloha.env"):
        monkeypatch.setitem(sys.modules, module, None)
    benchmark = load_benchmark(name)
    with pytest.raises(FoundryError, match="cannot be imported") as caught:
        benchmark.environment(next(iter(benchmark.tasks())))
    assert f"foundry-robotics[{name}]" in caught.value.hint


@pytest.mark.slow("plays whole episodes in real simulators")
@pytest.mark.parametrize(("name", "task"), TASKS)
def test_an_episode_repeats_to_the_bit_in_a_fresh_and_a_used_environment(name, task):
    needs(name)
    benchmark = load_benchmark(name, OPTIONS[name])

    def play(environment, index):
        environment.reset(benchmark.scenario(task, index))
        seen, rng = [environment.observe()], np.random.default_rng(index)
        start = benchmark.still(seen[0])
        for _ in range(8):
            moved = {k: v + rng.uniform(-0.05, 0.05, v.shape) for k, v in start.items()}
            environment.act(moved)
            seen.append(environment.observe())
        return seen

    used = benchmark.environment(task)
    first = play(used, 3)
    other = play(used, 4)
    for again in (play(used, 3), play(benchmark.environment(task), 3)):
        for one, two in zip(first, again, strict=True):
            for field in benchmark.observes:
                np.testing.assert_array_equal(one["lowdim"][field], two["lowdim"][field])
            for camera in benchmark.cameras():
                np.testing.assert_array_equal(one["images"][camera], two["images"][camera])
    camera = benchmark.cameras()[0]
    assert (other[0]["images"][camera] != first[0]["images"][camera]).any()
    shown = benchmark.contract().cameras[camera].drawn
    assert first[0]["images"][camera].shape == (*shown, 3)


@pytest.mark.slow("plays whole episodes in real simulators")
@pytest.mark.parametrize(("name", "task"), TASKS)
def test_doing_nothing_solves_nothing(name, task):
    needs(name)
    benchmark = load_benchmark(name, OPTIONS[name])
    plans = plan_episodes(benchmark, [task], first=0, count=3, seed=0)
    results = run_episodes(benchmark, Control(benchmark, "still"), plans)
    assert [result.success for result in results] == [False] * 3


@pytest.mark.slow("plays whole episodes in real simulators")
def test_a_block_on_its_outline_is_solved():
    needs("pusht")
    benchmark = load_benchmark("pusht")
    environment = benchmark.environment("pusht")
    environment.reset(benchmark.scenario("pusht", 0))
    inside = environment._env
    inside.block.angle = float(inside.goal_pose[2])
    inside.block.position = [float(part) for part in inside.goal_pose[:2]]
    inside.agent.position = [30.0, 30.0]
    environment.act({"robot__action__plane": np.array([30.0, 30.0])})
    assert environment.success
