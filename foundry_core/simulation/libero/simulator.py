"""One LIBERO task, headless: published or drawn starts, absolute pose targets at 20 Hz, pictures.

Shapes: xyz [3] m and rot6d [6] in the world, gripper [1] m (0 closed, 0.08 open). The pose is that
of LIBERO's observations: the grip point, and the rotation of the hand's body. What happens is a
pure function of (task, scenario, targets), to the last bit: LIBERO's own reset is not, because the
solver's warm start, the controller's goal and the gripper's command survive it.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from functools import cache, lru_cache
from io import StringIO
from types import ModuleType
from typing import Any

import numpy as np

from foundry_core.data.robot.poses import decode_rot6d
from foundry_core.errors import FoundryError
from foundry_core.simulation.backend import (
    SimulationFault,
    check_stable,
    load_mujoco,
    offscreen_renderer,
)
from foundry_core.simulation.camera import area_average
from foundry_core.simulation.catalog import (
    ACTION_GRIPPER,
    ACTION_ROT6D,
    ACTION_XYZ,
    GRIPPER,
    ROT6D,
    XYZ,
)
from foundry_core.simulation.decimate import decimate_visuals
from foundry_core.simulation.libero import catalog
from foundry_core.simulation.libero.config import OPEN_M, VIEWS, LiberoScene
from foundry_core.simulation.libero.osc import (
    STEP_M,
    STEP_RAD,
    PlainController,
    rotation_vector,
)
from foundry_core.simulation.scenarios import BLOCK
from foundry_core.simulation.simulator import scenario_entropy

WAITING_STEPS = 10
"""Objects start inside what they stand on and pop up: published evaluations wait that long."""

_WAIT = np.array([0, 0, 0, 0, 0, 0, -1.0])
_DRAWS = 100
_COLLISION_GROUP, _VISUAL_GROUP = 0, 1


class LiberoSimulator:
    """A task's model, state and renderer. `reset` before anything else."""

    def __init__(self, task: str, scene: LiberoScene) -> None:
        self.spec, self.scene, self.render = scene.problem(task), scene, scene.render
        self._mujoco = load_mujoco()
        self._starts = np.load(self.spec.starts)["states"]
        with _seeded(0), redirect_stdout(StringIO()):
            self._env = _control_env()(
                bddl_file_name=str(self.spec.bddl),
                has_offscreen_renderer=False,
                use_camera_obs=False,
                hard_reset=False,
            )
        self.domain = self._env.env
        self.model, self.data = self.domain.sim.model._model, self.domain.sim.data._data
        self.robot = self.domain.robots[0]
        self._hand = self.model.body(self.robot.robot_model.eef_name).id
        self._fingers = np.array(self.robot._ref_gripper_joint_pos_indexes)
        if self.render.decimate:
            decimate_visuals(self.model, self.render.decimate)
        self._plain = (
            PlainController(self._mujoco, self.model, self.data, self.robot)
            if scene.fast_step
            else None
        )
        self._renderer: Any = None
        self.scenario: int | None = None
        self.success = self.solved = False
        self.steps = 0

    def reset(self, scenario: int) -> None:
        """Published start `scenario`, or, from 2^20 on, one drawn as LIBERO draws them; then the
        waiting steps. The same whatever ran before."""
        published = scenario < BLOCK
        if published and not 0 <= scenario < len(self._starts):
            raise FoundryError(
                f"{self.spec.name} has no start {scenario}", f"0 to {len(self._starts) - 1} exist"
            )
        # Poses of fixtures are drawn by LIBERO's reset even where the rest is given.
        entropy = scenario_entropy(self.spec.name, scenario).generate_state(1)[0]
        # Twice: LIBERO puts things on a fixture where that stood before this reset moved it.
        for _ in range(1 if published else 2):
            with _seeded(0 if published else int(entropy)):
                self._draw()
        if published:
            self.domain.sim.set_state_from_flattened(self._starts[scenario])
        self._forget()
        self.scenario, self.success, self.solved, self.steps = scenario, False, False, 0
        for _ in range(WAITING_STEPS):
            self.act(_WAIT)
        self.success, self.steps = self.solved, 0

    def command_fields(self, targets: Mapping[str, np.ndarray]) -> None:
        """One control step (1/20 s) towards an absolute pose. The goal moves at most 5 cm an axis
        and half a radian from where the hand is; a gripper target beyond half open opens."""
        xyz, rotation = self.pose()
        turn = decode_rot6d(targets[ACTION_ROT6D]) @ rotation.T
        opens = float(targets[ACTION_GRIPPER][0]) > OPEN_M / 2
        move = (targets[ACTION_XYZ] - xyz) / STEP_M
        self.act(np.concatenate([move, rotation_vector(turn) / STEP_RAD, [-1.0 if opens else 1.0]]))

    def act(self, action: np.ndarray) -> None:
        """One control step with LIBERO's own action [7]. `success` latches, `solved` is that of
        this step; neither ends an episode."""
        where = f"{self.spec.name}, scenario {self.scenario}, step {self.steps}"
        if not np.isfinite(action).all():
            raise SimulationFault(f"{where}: action {action.tolist()} is not finite")
        if self._plain is not None:
            self._plain.step(action)
        else:
            self.domain.step(np.clip(action, -1, 1))
        check_stable(self._mujoco, self.data, where)
        self.solved = bool(self._env.check_success())
        self.success = self.success or self.solved
        self.steps += 1
        # What is measured and drawn next is of this instant, not of a substep before.
        self._mujoco.mj_forward(self.model, self.data)

    def wander(self, steps: int, rng: np.random.Generator) -> None:
        """`steps` control steps in random directions that count as if they had not happened."""
        for _ in range(steps):
            self.act(np.concatenate([rng.uniform(-1, 1, 3), np.zeros(3), [-1.0]]))
        self.steps = 0

    def pose(self) -> tuple[np.ndarray, np.ndarray]:
        """(xyz [3] of the grip point, rotation [3, 3] of the hand's body), in the world."""
        xyz = self.data.site_xpos[self.robot.eef_site_id]
        return xyz.copy(), self.data.xmat[self._hand].reshape(3, 3).copy()

    def lowdim(self) -> dict[str, np.ndarray]:
        """Measured fields, float64 [D]."""
        xyz, rotation = self.pose()
        left, right = self.data.qpos[self._fingers]
        return {
            XYZ: xyz,
            ROT6D: rotation[:2].ravel(),
            GRIPPER: np.array([np.clip(left - right, 0.0, OPEN_M)]),
        }

    def position(self, name: str) -> np.ndarray:
        """[3] m in the world, of an object or a fixture of the problem."""
        return self.data.xpos[self.domain.obj_body_id[name]].copy()

    def state(self) -> np.ndarray:
        """float64 [N]: positions, then velocities."""
        return np.concatenate([self.data.qpos, self.data.qvel])

    def images(self) -> dict[str, np.ndarray]:
        """Camera → uint8 [size, size, 3], upright."""
        factor = self.render.factor
        return {name: area_average(self.picture(name), factor) for name in self.render.cameras}

    def picture(self, camera: str) -> np.ndarray:
        """The camera's frame before averaging."""
        if self._renderer is None:
            self._renderer = offscreen_renderer(
                self._mujoco,
                self.model,
                self.render.pixels,
                as_shipped=self.render.style == "shipped",
            )
            self._looks = self._mujoco.MjvOption()
            self._looks.geomgroup[_COLLISION_GROUP] = 0
            self._looks.geomgroup[_VISUAL_GROUP] = 1
            self._looks.sitegroup[:] = 0
        self._renderer.update_scene(self.data, VIEWS[camera], self._looks)
        frame = self._renderer.render()
        return np.ascontiguousarray(frame[:, ::-1]) if self.render.mirror else frame

    def close(self) -> None:
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def _draw(self) -> None:
        from robosuite.utils.errors import RandomizationError

        for _ in range(_DRAWS):
            try:
                self.domain.reset()
            except RandomizationError:  # no room for an object: LIBERO draws again, too
                continue
            return
        raise SimulationFault(f"{self.spec.name}: LIBERO found no place for its objects")

    def _forget(self) -> None:
        """Everything that survives LIBERO's reset and enters the next step."""
        controller = self.robot.controller
        self.robot.gripper.current_action = np.zeros(2)
        self.data.qacc_warmstart[:] = 0
        self.data.ctrl[:] = 0
        self.data.time = 0
        self._mujoco.mj_forward(self.model, self.data)
        controller.update(force=True)
        controller.reset_goal()
        self.data.qacc_warmstart[:] = 0
        if self._plain is not None:
            self._plain.reset(controller.initial_joint)


@lru_cache(maxsize=2)
def shared_libero(task: str, scene: LiberoScene) -> LiberoSimulator:
    """This process's simulator of a task: building one costs 2-5 s, resetting it 50 ms. Few are
    kept: each holds its textures, hundreds of megabytes."""
    return LiberoSimulator(task, scene)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """LIBERO draws from NumPy's global generator, which others may use."""
    before = np.random.get_state()
    np.random.seed(seed)
    try:
        yield
    finally:
        np.random.set_state(before)


@cache
def _control_env() -> Any:
    """LIBERO's environment class. Its console messages and a user's path overrides are kept out:
    outcomes depend on the installed package alone."""
    os.environ["LIBERO_CONFIG_PATH"] = os.devnull
    # robosuite's place for a user's settings. Its own would write a file of one name for everybody
    # into the temporary folder.
    settings = ModuleType("robosuite.macros_private")
    settings.__dict__.update(FILE_LOGGING_LEVEL=None, CONSOLE_LOGGING_LEVEL="ERROR")
    sys.modules.setdefault(settings.__name__, settings)
    load_mujoco()
    try:
        with redirect_stdout(StringIO()):
            from libero.libero.envs.env_wrapper import ControlEnv
    except ImportError as error:
        raise FoundryError(f"LIBERO cannot be imported: {error}", catalog.INSTALL) from error
    return ControlEnv
