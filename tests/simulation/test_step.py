"""What we leave out of Meta-World's step changes neither physics, nor expert, nor success."""

import copy

import numpy as np
import pytest

from foundry_core.simulation.catalog import SUBSTEPS, TASKS
from foundry_core.simulation.config import DEFAULT_TASKS, RenderConfig
from foundry_core.simulation.simulator import _READS_ORIENTATION, OPEN_M, Simulator

RENDER = RenderConfig(size=32, supersample=1)
STEPS = 12


def metaworlds_target(simulator: Simulator) -> tuple[np.ndarray, float]:
    """The expert's target by Meta-World's own step, on a copy of the state."""
    env = simulator._env
    kept, space = dict(env.__dict__), env.sawyer_observation_space
    env.data, env.curr_path_length = copy.copy(env.data), 0
    try:
        before = env._prev_obs
        seen = np.clip(env._get_obs(), space.low, space.high)
        env._prev_obs = before
        for _ in range(SUBSTEPS):
            action = simulator._expert.get_action(seen)
            seen, *_ = env.step(action)
        return env.data.mocap_pos[0].copy(), (1 - float(np.clip(action[3], -1, 1))) / 2 * OPEN_M
    finally:
        env.__dict__.clear()
        env.__dict__.update(kept)


def played(task: str, turned) -> list[bytes]:
    """States and successes of an episode whose objects are turned so, as the reward sees it."""
    simulator = Simulator(task, RENDER)
    if turned is not None:
        simulator._env._get_quat_objects = turned(simulator._env)
    simulator.reset(3)
    found = []
    for _ in range(STEPS):
        if turned is None:
            target = simulator.expert_target()
        else:
            target = metaworlds_target(simulator)
        simulator.command(*target)
        data = simulator._env.data
        found.append(data.qpos.tobytes() + data.qvel.tobytes() + bytes([simulator.solved]))
    return found


def as_shipped(env):
    return type(env)._get_quat_objects.__get__(env)


def unknown(env):
    """Whoever reads it gets no number."""
    return lambda: np.full(4 * (len(env._get_pos_objects()) // 3), np.nan)


def check(task: str) -> None:
    ours = played(task, None)
    assert ours == played(task, as_shipped)
    if task not in _READS_ORIENTATION:
        assert ours == played(task, unknown)


@pytest.mark.parametrize("task", [*DEFAULT_TASKS, "hammer-v3"])
def test_an_episode_is_that_of_metaworlds_own_step(task):
    check(task)


@pytest.mark.slow("three simulators of each of fifty tasks")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("task", sorted(TASKS))
def test_an_episode_of_every_task_is_that_of_metaworlds_own_step(task):
    check(task)


@pytest.mark.parametrize("task", DEFAULT_TASKS)
def test_steps_that_nobody_judges_move_everything_alike(task):
    states = []
    for judged in (True, False):
        simulator = Simulator(task, RENDER)
        simulator.reset(5)
        rng = np.random.default_rng(0)
        for _ in range(STEPS):
            move = rng.uniform(-1, 1, 3) * simulator.reach
            simulator.command(simulator._target() + move, OPEN_M / 2, judged=judged)
        images = [image.tobytes() for image in simulator.images().values()]
        states.append([simulator._env.data.qpos.tobytes(), *images])
        assert simulator.steps == STEPS
    assert states[0] == states[1]


def test_a_step_that_nobody_judges_leaves_success_as_it_is():
    simulator = Simulator("reach-v3", RENDER)
    simulator.reset(0)
    goal = np.array(simulator._env._target_pos)
    for _ in range(30):
        simulator.command(goal, OPEN_M, judged=False)
    assert not simulator.success and not simulator.solved
    simulator.command(goal, OPEN_M)
    assert simulator.success
