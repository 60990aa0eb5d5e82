"""Scenarios are pure functions of their index; control and cameras do what they say."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from foundry_core.errors import FoundryError
from foundry_core.simulation import backend, catalog
from foundry_core.simulation.backend import offscreen_renderer
from foundry_core.simulation.camera import CameraPose, area_average
from foundry_core.simulation.config import DEFAULT_TASKS, RenderConfig
from foundry_core.simulation.simulator import SimulationFault, Simulator, shared_simulator

RENDER = RenderConfig(size=32, supersample=2)


def state_of(simulator: Simulator) -> np.ndarray:
    """The whole physical state, flat."""
    mujoco, model, data = simulator._mujoco, simulator._model, simulator._env.data
    kind = mujoco.mjtState.mjSTATE_INTEGRATION
    state = np.empty(mujoco.mj_stateSize(model, kind))
    mujoco.mj_getState(model, data, state, kind)
    return np.concatenate([state, model.body_pos.ravel(), data.xpos.ravel()])


def fingerprint(simulator: Simulator) -> str:
    digest = hashlib.sha256(state_of(simulator).tobytes())
    for image in simulator.images().values():
        digest.update(image.tobytes())
    return digest.hexdigest()


@pytest.fixture
def simulator() -> Simulator:
    simulator = shared_simulator("drawer-open-v3", RENDER)
    simulator.reset(0)
    return simulator


def test_simulators_of_a_task_share_a_context_and_draw_their_own_state(monkeypatch):
    made = []
    monkeypatch.setattr(
        backend, "offscreen_renderer", lambda *a: made.append(1) or offscreen_renderer(*a)
    )
    alone = {}
    for scenario in (3, 5):
        simulator = Simulator("lever-pull-v3", RENDER)
        simulator.reset(scenario)
        alone[scenario] = simulator.images()
        simulator.close()
    assert len(made) == 2, "the context of nobody is not kept"
    pair = {scenario: Simulator("lever-pull-v3", RENDER) for scenario in (3, 5)}
    for scenario, simulator in pair.items():
        simulator.reset(scenario)
        simulator.images()
    pair[5].close()
    for camera, picture in pair[3].images().items():
        np.testing.assert_array_equal(picture, alone[3][camera])
        assert (picture != alone[5][camera]).any()
    assert len(made) == 3


def test_a_context_that_fails_is_given_to_nobody_any_more(monkeypatch):
    first, second = (Simulator("lever-pull-v3", RENDER) for _ in range(2))
    for simulator in (first, second):
        simulator.reset(3)
    whole = first.images()

    def fails():
        raise RuntimeError("the driver is gone")

    with monkeypatch.context() as patched:
        patched.setattr(first._renderer, "render", fails)
        with pytest.raises(RuntimeError):
            first.images()
    for camera, picture in second.images().items():
        np.testing.assert_array_equal(picture, whole[camera])
    assert second._renderer is not first._renderer


def test_what_is_drawn_of_a_moment_is_what_was_to_be_seen_then(simulator):
    moment, before = simulator.moment(), fingerprint(simulator)
    for _ in range(3):
        simulator.command(*simulator.expert_target())
    after = fingerprint(simulator)
    with simulator.as_of(moment):
        assert fingerprint(simulator) == before
    assert fingerprint(simulator) == after != before


OTHER_PROCESS = """
from foundry_core.simulation.config import RenderConfig
from foundry_core.simulation.simulator import Simulator
from tests.simulation.test_simulator import RENDER, fingerprint
for task in {tasks!r}:
    simulator = Simulator(task, RENDER)
    simulator.reset(5)
    simulator.command(*simulator.expert_target())
    print(fingerprint(simulator))
"""


def test_a_scenario_is_the_same_after_others_and_in_another_process():
    tasks = DEFAULT_TASKS[:3]
    here = []
    for task in tasks:
        simulator = shared_simulator(task, RENDER)
        for scenario in (9, 2):
            simulator.reset(scenario)
            simulator.wander(3, np.random.default_rng(0))
        simulator.reset(5)
        simulator.command(*simulator.expert_target())
        here.append(fingerprint(simulator))
    child = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", OTHER_PROCESS.format(tasks=tasks)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert child.stdout.split() == here


@pytest.mark.parametrize("task", DEFAULT_TASKS)
def test_scenarios_differ(task):
    simulator = shared_simulator(task, RENDER)
    places = set()
    for scenario in range(5):
        simulator.reset(scenario)
        places.add(tuple(simulator.points()["object"].round(6)))
    assert len(places) == 5


def test_equal_indices_of_two_tasks_are_not_the_same_draw():
    depths = []
    for task in ("window-open-v3", "lever-pull-v3"):
        simulator = shared_simulator(task, RENDER)
        simulator.reset(5)
        depths.append(simulator._env._last_rand_vec[0])
    assert depths[0] != depths[1]


def test_first_observation_shows_the_objects_where_they_are():
    simulator = shared_simulator("window-open-v3", RENDER)
    simulator.reset(1)
    simulator.reset(2)
    before = simulator.points()
    simulator._mujoco.mj_forward(simulator._model, simulator._env.data)
    for name, point in simulator.points().items():
        np.testing.assert_array_equal(point, before[name])


def test_asking_the_expert_changes_nothing_to_the_last_bit():
    simulator = shared_simulator("drawer-open-v3", RENDER)
    simulator.reset(3)
    targets, states = [], []
    for _ in range(6):
        targets.append(simulator.expert_target())
        simulator.command(*targets[-1])
        states.append(state_of(simulator))
    simulator.reset(3)
    for target, state in zip(targets, states, strict=True):
        simulator.command(*target)
        np.testing.assert_array_equal(state_of(simulator), state)


def test_a_target_is_reached_at_most_five_centimetres_per_step_and_axis(simulator):
    start = simulator._target()
    simulator.command(start + np.array([1.0, 0.02, 0.0]), 0.1)
    np.testing.assert_allclose(simulator._target() - start, [0.05, 0.02, 0.0], atol=1e-12)


def test_gripper_opening_is_measured_in_metres_and_follows(simulator):
    hand = simulator._target()
    for _ in range(12):
        simulator.command(hand, 0.1)
    opened = simulator.lowdim()[catalog.GRIPPER][0]
    for _ in range(12):
        simulator.command(hand, 0.0)
    closed = simulator.lowdim()[catalog.GRIPPER][0]
    assert 0 <= closed < opened - 0.03 <= 0.1


def test_measured_rotation_is_a_rotation_near_the_commanded_one(simulator):
    rows = simulator.lowdim()[catalog.ROT6D].reshape(2, 3)
    np.testing.assert_allclose(rows @ rows.T, np.eye(2), atol=1e-9)
    np.testing.assert_allclose(rows, [[0, 0, 1], [0, 1, 0]], atol=0.1)


@pytest.mark.parametrize("target", [(np.full(3, np.nan), 0.1), (np.zeros(3), np.inf)])
def test_a_target_that_is_no_number_is_a_fault(simulator, target):
    with pytest.raises(SimulationFault, match="not finite"):
        simulator.command(*target)


def test_unstable_physics_is_a_fault_although_mujoco_hides_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    simulator = Simulator("drawer-open-v3", RENDER)
    simulator.reset(0)
    simulator._env.data.qvel[:] = 1e12
    with pytest.raises(SimulationFault, match="unstable"):
        simulator.command(simulator._target(), 0.1)
    assert not list(tmp_path.iterdir())  # MuJoCo would leave a log behind
    simulator.reset(0)
    simulator.command(simulator._target(), 0.1)


def test_success_latches_and_does_not_end_the_episode(simulator):
    while not simulator.success:
        simulator.command(*simulator.expert_target())
    hand = simulator._target()
    for _ in range(8):  # push the drawer shut again
        simulator.command(hand + np.array([0, 0.3, 0]), 0.0)
    points = simulator.points()
    assert np.linalg.norm(points["object"] - points["goal"]) > 0.05
    assert simulator.success


def test_wandering_does_not_use_up_the_steps_of_an_episode(simulator):
    simulator.wander(15, np.random.default_rng(1))
    hand = simulator._target()
    for _ in range(100):
        simulator.command(hand, 0.1)
    assert simulator.steps == 100
    with pytest.raises(ValueError, match="reset"):  # Meta-World's own limit
        simulator.command(hand, 0.1)


@pytest.mark.parametrize("camera", ["scene", "workspace", "wrist"])
def test_projection_finds_the_green_goal_in_the_picture(camera):
    simulator = Simulator("drawer-open-v3", RenderConfig(size=64))
    for scenario in range(50):  # one that shows the whole goal
        simulator.reset(scenario)
        seen = simulator.camera_pose(camera).project(simulator.points()["goal"])
        if seen and all(0.2 < part < 0.8 for part in seen):
            break
    picture = simulator.picture(camera).astype(int)
    green = picture[..., 1] - picture[..., [0, 2]].max(-1)
    rows, columns = np.nonzero(green > 0.8 * green.max())
    side = len(picture)
    assert seen == pytest.approx((columns.mean() / side, rows.mean() / side), abs=0.03)


@pytest.mark.parametrize("camera", [name for name in catalog.CAMERAS if name != "wrist"])
def test_scene_cameras_are_upright(simulator, camera):
    pose = simulator.camera_pose(camera)
    low = pose.project(np.array([0.0, 0.7, 0.1]))
    high = pose.project(np.array([0.0, 0.7, 0.3]))
    assert high[1] < low[1] - 0.02


def test_projection_known_values():
    plain = CameraPose(position=np.zeros(3), axes=np.eye(3), fovy=90.0, upside_down=False)
    assert plain.project(np.array([0.0, 0.0, -2.0])) == (0.5, 0.5)
    assert plain.project(np.array([1.0, 0.5, -2.0])) == pytest.approx((0.75, 0.375))
    assert plain.project(np.array([0.0, 0.0, 1.0])) is None
    assert plain.project(np.array([3.0, 0.0, -2.0])) is None
    turned = CameraPose(position=np.zeros(3), axes=np.eye(3), fovy=90.0, upside_down=True)
    assert turned.project(np.array([1.0, 0.5, -2.0])) == pytest.approx((0.25, 0.625))
    mirrored = CameraPose(position=np.zeros(3), axes=np.eye(3), fovy=90.0, mirrored=True)
    assert mirrored.project(np.array([1.0, 0.5, -2.0])) == pytest.approx((0.25, 0.375))


@pytest.mark.parametrize("task", DEFAULT_TASKS)
def test_hiding_what_no_camera_sees_changes_no_pixel(task, monkeypatch):
    simulator = Simulator(task, RenderConfig())
    simulator.reset(3)
    hidden = 0
    for _ in range(12):
        simulator.command(*simulator.expert_target())
        fast = simulator.images()
        for camera in fast:
            pose, data = simulator.camera_pose(camera), simulator._env.data
            hidden += (~pose.sees(data.geom_xpos, simulator._model.geom_rbound)).sum()
        with monkeypatch.context() as m:
            m.setattr(CameraPose, "sees", lambda self, centres, radii: np.full(len(radii), True))
            slow = simulator.images()
        for camera in fast:
            np.testing.assert_array_equal(fast[camera], slow[camera])
    assert hidden > 100
    simulator.close()


def test_a_sphere_is_seen_until_it_leaves_the_pyramid_of_view():
    pose = CameraPose(position=np.zeros(3), axes=np.eye(3), fovy=90.0, upside_down=False)
    centres = np.array([[0, 0, -5], [0, 0, 5], [6, 0, -5], [0, -6, -5], [0, 0, 0.5]], float)
    assert pose.sees(centres, np.full(5, 0.5)).tolist() == [True, False, False, False, True]
    assert pose.sees(centres, np.full(5, 0.8)).tolist() == [True, False, True, True, True]


def test_area_average_rounds_the_mean_of_each_block():
    frame = np.zeros((2, 4, 3), dtype=np.uint8)
    frame[:, :2] = [[[1, 10, 255]] * 2, [[2, 11, 255]] * 2]
    np.testing.assert_array_equal(area_average(frame, 2), [[[2, 11, 255], [0, 0, 0]]])


def test_unknown_task_names_the_nearest():
    with pytest.raises(FoundryError, match="drawer-open-v3"):
        Simulator("drawer-opn-v3", RENDER)
