"""One ALOHA task on dm_control, headless, commanded by joints or by the poses of its two hands.

gym-aloha's own environment draws three pictures a step and keeps where things begin in a variable
of the module; here one is drawn where it is asked for. What happens is a pure function of (task,
scenario, targets), to the last bit.
"""

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from foundry_core.data.robot.poses import encode_rot6d
from foundry_core.errors import FoundryError
from foundry_core.simulation.aloha.config import CAMERA, SIDES, AlohaScene, part_names
from foundry_core.simulation.aloha.kinematics import ARMS, HIGH, LOW, hand_pose, joints_for
from foundry_core.simulation.backend import SimulationFault, load_mujoco

_FULL_REWARD = 4
_SHOWN = {"height": 240, "width": 320}
_START = np.array([0, -0.96, 1.16, 0, -0.3, 0])
_DRIFT_RAD = 0.01
_MEASURED, _COMMANDED = "robot__actual__", "robot__action__"


class AlohaSimulator:
    """A task's physics and rules. `reset` before anything else."""

    def __init__(self, task: str, scene: AlohaScene) -> None:
        load_mujoco()
        try:
            from gym_aloha.env import AlohaEnv
        except ImportError as error:
            raise FoundryError(
                f"gym-aloha cannot be imported: {error}", "pip install 'foundry-robotics[aloha]'"
            ) from error
        self.task, self.scene = task, scene
        self._control = AlohaEnv(task)._env
        self._physics, self._rules = self._control.physics, self._control.task
        self._rules.get_observation = lambda physics: {}
        self.success = self.solved = False
        self.steps = 0

    def reset(self, scenario: int) -> None:
        """The things where seed `scenario` draws them, both arms in front. The same whatever ran
        before."""
        from gym_aloha.tasks.sim import BOX_POSE
        from gym_aloha.utils import sample_box_pose, sample_insertion_pose

        if self.task == "transfer_cube":
            BOX_POSE[0] = sample_box_pose(scenario)
        else:
            BOX_POSE[0] = np.concatenate(sample_insertion_pose(scenario))
        self._control.reset()
        # What the inverse kinematics stays near: the joints commanded last.
        self._joints = {side: _START.copy() for side in SIDES}
        self.scenario, self.success, self.solved, self.steps = scenario, False, False, 0

    def command_fields(self, targets: Mapping[str, np.ndarray]) -> None:
        """One control step (1/50 s) towards absolute targets: of joints, or the poses of both hands
        by the joints nearest to those commanded last that reach them."""
        parts = []
        for side in SIDES:
            *where, grip = (targets[_COMMANDED + part] for part in self._parts(side))
            if self.scene.control == "poses":
                xyz, rot6d = where
                where = [joints_for(ARMS[side], xyz, rot6d, self._joints[side])]
            parts += [*where, grip]
            self._joints[side] = np.asarray(where[0], float)
        self._act(np.concatenate(parts))

    def wander(self, steps: int, rng: np.random.Generator) -> None:
        """`steps` control steps in which the arms drift, that count as if they had not happened."""
        drift = {side: rng.uniform(-_DRIFT_RAD, _DRIFT_RAD, 6) for side in SIDES}
        for _ in range(steps):
            for side in SIDES:
                self._joints[side] = np.clip(self._joints[side] + drift[side], LOW, HIGH)
            self._act(np.concatenate([[*self._joints[side], 0.0] for side in SIDES]))
        self.steps = 0

    def lowdim(self) -> dict[str, np.ndarray]:
        """Measured fields, float64 [D]."""
        values = self._rules.get_qpos(self._physics).astype(float)
        found: dict[str, np.ndarray] = {}
        for side, (*joints, grip) in zip(SIDES, (values[:7], values[7:]), strict=True):
            where = [np.array(joints)]
            if self.scene.control == "poses":
                where = list(hand_pose(ARMS[side], where[0]))
            found |= dict(zip(self._parts(side), [*where, np.array([grip])], strict=True))
        return {_MEASURED + part: value for part, value in found.items()}

    def hand(self, side: str) -> tuple[np.ndarray, np.ndarray]:
        """(xyz [3], rot6d [6]) as MuJoCo has them, after the last step."""
        body = f"vx300s_{side}/gripper_link"
        data = self._physics.named.data
        return data.xpos[body].copy(), encode_rot6d(data.xmat[body].reshape(3, 3))

    def thing(self) -> np.ndarray:
        """Where the cube is [3], of transfer_cube."""
        return self._physics.named.data.xpos["box"].copy()

    def state(self) -> np.ndarray:
        """float64 [N]: positions, then velocities."""
        return np.concatenate([self._physics.data.qpos, self._physics.data.qvel])

    def images(self) -> dict[str, np.ndarray]:
        """Camera → uint8 [height, width, 3]."""
        return {CAMERA: self._drawn(height=self.scene.height, width=self.scene.width)}

    def picture(self, camera: str) -> np.ndarray:
        """For people, of one size."""
        return self._drawn(**_SHOWN)

    def close(self) -> None:
        self._control.close()

    def _act(self, action: np.ndarray) -> None:
        """gym-aloha's action [14]. `success` latches, `solved` is that of this step."""
        if not np.isfinite(action).all():
            where = f"{self.task}, scenario {self.scenario}, step {self.steps}"
            raise SimulationFault(f"{where}: action {action.tolist()} is not finite")
        self.solved = self._control.step(action).reward == _FULL_REWARD
        self.success = self.success or self.solved
        self.steps += 1

    def _parts(self, side: str) -> list[str]:
        return part_names(self.scene.control, side)

    def _drawn(self, height: int, width: int) -> np.ndarray:
        return self._physics.render(height=height, width=width, camera_id=CAMERA)


@lru_cache(maxsize=2)
def shared_aloha(task: str, scene: AlohaScene) -> AlohaSimulator:
    """This process's simulator of a task."""
    return AlohaSimulator(task, scene)
