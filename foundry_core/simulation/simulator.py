"""One Meta-World task, headless: seeded scenarios, absolute pose targets at 16 Hz, pictures.

Shapes: xyz [3] m in the world, rot6d [6], gripper [1] m (0 closed, 0.1 open). Everything that
happens is a pure function of (task, scenario, targets); Meta-World's own `reset(seed=)` is ignored
by Meta-World, hence the private switches in `_make_environment`.
"""

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np

from foundry_core.simulation import catalog
from foundry_core.simulation.backend import (
    SimulationFault,
    check_stable,
    draw,
    load_mujoco,
    shared_renderer,
)
from foundry_core.simulation.camera import CameraPose, area_average, look_at
from foundry_core.simulation.config import RenderConfig, task_spec

OPEN_M = 0.1
HAND_ROT6D = np.array([0.0, 0.0, 1.0, 0.0, 1.0, 0.0])
"""[6], written into every recorded action: Meta-World keeps the hand pointing down."""

_READS_ORIENTATION = frozenset({"assembly-v3", "box-close-v3", "disassemble-v3", "hammer-v3"})
"""Tasks whose reward or success reads how an object is turned. In the others nobody asks, and
working it out is a third of Meta-World's step."""

_HIDDEN_GROUP = 5
"""MuJoCo draws the geoms of groups 0-2 unless told otherwise."""


class Simulator:
    """A task's model, state and renderer. `reset` before anything else."""

    def __init__(self, task: str, render: RenderConfig) -> None:
        self.spec = task_spec(task)
        self.render = render
        self._mujoco = load_mujoco()
        self._env, self._expert = _make_environment(task)
        self._model = self._env.model
        for camera in render.cameras:
            self._mount(catalog.CAMERAS[camera])
        self._renderer: Any = None
        self.scenario: int | None = None
        self.success = self.solved = False
        self.steps = 0

    def reset(self, scenario: int) -> None:
        """Places robot and objects as scenario ≥ 0 says: the same whatever ran before."""
        seed = scenario_entropy(self.spec.name, scenario).generate_state(1, np.uint64)[0] >> 1
        self._env.seed(int(seed))
        self._env.reset()
        self._settle()
        self.scenario, self.success, self.solved, self.steps = scenario, False, False, 0

    def wander(self, steps: int, rng: np.random.Generator) -> None:
        """`steps` control steps in random directions that count as if they had not happened."""
        for _ in range(steps):
            self.command(self._target() + rng.uniform(-1, 1, 3) * self.reach, OPEN_M)
        self._env.curr_path_length = self.steps = 0

    @property
    def reach(self) -> float:
        """Metres per axis that the target may move in one control step."""
        return float(self._env.action_scale) * catalog.SUBSTEPS

    def command(self, xyz: np.ndarray, opening: float, *, judged: bool = True) -> None:
        """One control step (1/16 s) towards an absolute hand position and gripper opening.

        The target moves there evenly over the five Meta-World steps, at most 1 cm per step and
        axis, Meta-World's own bound on actions. `success` latches, `solved` is that of the last of
        the five; neither ends an episode. judged: False leaves both as they are, which is cheaper.
        """
        if not (np.isfinite(xyz).all() and np.isfinite(opening)):
            raise SimulationFault(
                f"{self.spec.name}, scenario {self.scenario}, step {self.steps}: target "
                f"{np.asarray(xyz).tolist()}, {opening} is not finite"
            )
        effort = float(np.clip(1 - 2 * opening / OPEN_M, -1, 1))
        for left in range(catalog.SUBSTEPS, 0, -1):
            move = (xyz - self._target()) / (left * self._env.action_scale)
            action = np.append(np.clip(move, -1, 1), effort)
            if not judged:
                self._advance(action)
                continue
            *_, info = self._env.step(action)
            self.solved = info["success"] > 0
            self.success = self.success or self.solved
        self.steps += 1
        check_stable(
            self._mujoco,
            self._env.data,
            f"{self.spec.name}, scenario {self.scenario}, step {self.steps}",
        )

    def command_fields(self, targets: Mapping[str, np.ndarray]) -> None:
        """`command` from named action fields, [D] each. The commanded rotation is ignored: the
        hand cannot turn in Meta-World."""
        self.command(targets[catalog.ACTION_XYZ], float(targets[catalog.ACTION_GRIPPER][0]))

    def expert_target(self) -> tuple[np.ndarray, float]:
        """(xyz, opening) that Meta-World's scripted expert would reach one control step from now.

        The expert acts at 80 Hz on what it feels, so it is tried on a copy of the state; what is
        recorded is then exactly what `command` can repeat.
        """
        with self._imagined():
            effort = 0.0
            before = self._env._prev_obs
            observation = self._expert_view()
            self._env._prev_obs = before
            for _ in range(catalog.SUBSTEPS):
                action = self._expert.get_action(observation)
                self._advance(action)
                observation = self._expert_view()
                effort = float(np.clip(action[3], -1, 1))
            return self._target(), (1 - effort) / 2 * OPEN_M

    def images(self) -> dict[str, np.ndarray]:
        """Camera → uint8 [size, size, 3]."""
        factor = self.render.supersample
        return {c: area_average(self.picture(c), factor) for c in self.render.cameras}

    def picture(self, camera: str) -> np.ndarray:
        """The camera's frame before averaging, upright: for people to look at."""
        mounted = catalog.CAMERAS[camera]
        if self._renderer is None:
            pixels = self.render.size * self.render.supersample
            self._renderer = shared_renderer(self._mujoco, self.spec.name, self._model, pixels)
        with self._only_visible(camera):
            frame = draw(self._renderer, self._model, self._env.data, mounted.view)
        return np.ascontiguousarray(frame[::-1, ::-1]) if mounted.upside_down else frame

    def lowdim(self) -> dict[str, np.ndarray]:
        """Measured fields, float64 [D]."""
        hand = self._env.data.body("hand")
        right, left = (self._env.data.body(f"{side}claw").xpos for side in ("right", "left"))
        opening = min(float(np.linalg.norm(right - left)), OPEN_M)
        return {
            catalog.XYZ: hand.xpos.copy(),
            catalog.ROT6D: hand.xmat[:6].copy(),
            catalog.GRIPPER: np.array([opening]),
        }

    def points(self) -> dict[str, np.ndarray]:
        """Ground truth in the world, [3] m: between the fingers, the task's object, its goal."""
        return {
            "hand": self._env.tcp_center.copy(),
            "object": np.array(self._env._get_pos_objects()[:3], dtype=np.float64),
            "goal": np.array(self._env._target_pos[:3], dtype=np.float64),
        }

    def camera_pose(self, camera: str) -> CameraPose:
        """Where the camera is now; the wrist's moves with the hand."""
        mounted = catalog.CAMERAS[camera]
        view = self._env.data.camera(mounted.view)
        return CameraPose(
            position=view.xpos.copy(),
            axes=view.xmat.reshape(3, 3).copy(),
            fovy=float(self._model.camera(mounted.view).fovy[0]),
            upside_down=mounted.upside_down,
        )

    def moment(self) -> Any:
        """The present state, for `as_of`."""
        return copy.copy(self._env.data)

    @contextmanager
    def as_of(self, moment: Any) -> Iterator[None]:
        """Pictures and measurements are of that moment inside the block."""
        present, self._env.data = self._env.data, moment
        try:
            yield
        finally:
            self._env.data = present

    def close(self) -> None:
        self._renderer = None

    def _mount(self, camera: catalog.Camera) -> None:
        """Moves a view of the model to where the catalogue wants it; it takes effect at `reset`."""
        if camera.mount is None:
            return
        view, mount = self._model.camera(camera.view), camera.mount
        rotation = look_at(np.array(mount.position), np.array(mount.aim))
        view.pos[:], view.fovy[:] = mount.position, mount.fovy
        self._mujoco.mju_mat2Quat(view.quat, rotation.ravel())

    def _target(self) -> np.ndarray:
        return self._env.data.mocap_pos[0].copy()

    def _settle(self) -> None:
        """Meta-World moves objects after its last step: without this the first picture and the
        expert's first view show them where they were."""
        self._mujoco.mj_forward(self._model, self._env.data)
        self._env._prev_obs = self._env._get_curr_obs_combined_no_goal()

    def _advance(self, action: np.ndarray) -> None:
        """Meta-World's step to the bit, less what it says of it: observation, reward, success."""
        self._env.set_xyz_action(action[:3])
        self._env.do_simulation([action[-1], -action[-1]], n_frames=self._env.frame_skip)
        for site in self._env._target_site_config:
            self._env._set_pos_site(*site)
        self._mujoco.mj_forward(self._model, self._env.data)

    def _expert_view(self) -> np.ndarray:
        space = self._env.sawyer_observation_space
        return np.clip(self._env._get_obs(), space.low, space.high)

    @contextmanager
    def _only_visible(self, camera: str) -> Iterator[None]:
        """Hides what lies outside of the camera's view: the rasteriser's cost is its triangles,
        and most of the robot's are behind the wrist. The pixels stay the same, 35 % faster."""
        groups, radii = self._model.geom_group, self._model.geom_rbound
        visible = self.camera_pose(camera).sees(self._env.data.geom_xpos, radii)
        before = groups.copy()
        groups[~visible & (radii > 0)] = _HIDDEN_GROUP  # a plane has no bounding sphere: radius 0
        try:
            yield
        finally:
            groups[:] = before

    @contextmanager
    def _imagined(self) -> Iterator[None]:
        """Steps inside the block leave no trace, to the last bit."""
        kept = dict(self._env.__dict__)
        self._env.data = copy.copy(self._env.data)
        self._env.curr_path_length = 0
        try:
            yield
        finally:
            self._env.__dict__.clear()
            self._env.__dict__.update(kept)


@lru_cache(maxsize=16)
def shared_simulator(task: str, render: RenderConfig) -> Simulator:
    """This process's simulator of a task: building one costs 0.5 s, resetting it 10 ms."""
    return Simulator(task, render)


def scenario_entropy(task: str, scenario: int, *purpose: int) -> np.random.SeedSequence:
    """Randomness of a scenario for a purpose. The task is in it: outcomes on equal indices of two
    tasks must not be correlated, or statistics that pool tasks are wrong."""
    return np.random.SeedSequence([scenario, *task.encode(), *purpose])


def _make_environment(task: str) -> tuple[Any, Any]:
    """(environment, expert) with reproducible resets and goals visible to the expert."""
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS
    from metaworld.policies import ENV_POLICY_MAP

    experts: Mapping[str, Any] = ENV_POLICY_MAP
    env = ALL_V3_ENVIRONMENTS[task]()
    env._set_task_called = True
    env._freeze_rand_vec = False
    env.seeded_rand_vec = True
    env._partially_observable = False
    env.__dict__.pop("sawyer_observation_space", None)  # cached for the hidden goal
    if task not in _READS_ORIENTATION:
        unturned = np.zeros(4 * (len(env._get_pos_objects()) // 3))
        env._get_quat_objects = lambda: unturned  # type: ignore[method-assign]
    return env, experts[task]()
