"""LIBERO's controller (robosuite's OSC_POSE with fixed gains) written plainly.

The shipped one computes the physics three times a substep: before the controller, inside it, and in
the step itself; here once and a half. Same goal rule, gains and limits. Over an episode positions
stay within 1e-6 of the shipped ones (tests/simulation/libero); where a thing slips in contact the
solver's rounding grows: 2e-5 were seen, at the same step of success.
"""

from typing import Any

import numpy as np

SUBSTEPS = 25
STEP_M, STEP_RAD = 0.05, 0.5
"""What an action of 1 moves the goal by, from where the hand is."""

_KP = 150.0
_KD = 2 * np.sqrt(_KP)
_NULL_KP = 10.0
_NULL_KD = 2 * np.sqrt(_NULL_KP)
_GRIPPER_SPEED = 0.01
"""Of a finger's command, per substep: from open to closed takes eight control steps."""


class PlainController:
    """Drives one robosuite robot's arm and gripper. Shapes: action [7], joints [7], torques [7]."""

    def __init__(self, mujoco: Any, model: Any, data: Any, robot: Any) -> None:
        self._mujoco, self._model, self._data = mujoco, model, data
        self._site = robot.eef_site_id
        self._qpos = np.array(robot._ref_joint_pos_indexes)
        self._qvel = np.array(robot._ref_joint_vel_indexes)
        self._arm = np.array(robot._ref_joint_actuator_indexes)
        self._hand = np.array(robot._ref_joint_gripper_actuator_indexes)
        low, high = robot.torque_limits
        self._low, self._high = np.array(low), np.array(high)
        ends = model.actuator_ctrlrange[self._hand]
        self._middle, self._reach = ends.mean(axis=1), (ends[:, 1] - ends[:, 0]) / 2
        self._jacobian = np.zeros((6, model.nv))
        self._mass = np.zeros((model.nv, model.nv))
        self._fingers = np.zeros(2)

    def reset(self, initial_joints: np.ndarray) -> None:
        """The goal becomes the present pose. initial_joints: where the arm's spare degree of
        freedom is drawn to."""
        self._initial = initial_joints.copy()
        self._goal_xyz, self._goal_rotation = self._pose()
        self._fingers = np.zeros(2)

    def step(self, action: np.ndarray) -> None:
        """One control step: 25 substeps of 2 ms. The derived quantities of the data are left as of
        the last substep's beginning, as MuJoCo's own step leaves them."""
        mujoco, model, data = self._mujoco, self._model, self._data
        mujoco.mj_forward(model, data)
        self._aim(np.clip(action, -1, 1))
        for substep in range(SUBSTEPS):
            if substep:
                mujoco.mj_forward(model, data)
            data.ctrl[self._arm] = np.clip(self._torques(), self._low, self._high)
            data.ctrl[self._hand] = self._close(float(action[6]))
            mujoco.mj_step2(model, data)

    def _pose(self) -> tuple[np.ndarray, np.ndarray]:
        data, site = self._data, self._site
        return data.site_xpos[site].copy(), data.site_xmat[site].reshape(3, 3).copy()

    def _aim(self, action: np.ndarray) -> None:
        xyz, rotation = self._pose()
        self._goal_xyz = xyz + STEP_M * action[:3]
        if action[3:6].any():  # else the goal of the step before stays
            self._goal_rotation = rotation_of(STEP_RAD * action[3:6]) @ rotation

    def _close(self, effort: float) -> np.ndarray:
        moved = self._fingers + np.array([-1.0, 1.0]) * _GRIPPER_SPEED * np.sign(effort)
        self._fingers = np.clip(moved, -1, 1)
        return self._middle + self._reach * self._fingers

    def _torques(self) -> np.ndarray:
        model, data = self._model, self._data
        self._mujoco.mj_jacSite(model, data, self._jacobian[:3], self._jacobian[3:], self._site)
        jacobian = self._jacobian[:, self._qvel]
        self._mujoco.mj_fullM(model, self._mass, data.qM)
        mass = self._mass[np.ix_(self._qvel, self._qvel)]
        velocity = data.qvel[self._qvel]
        xyz, rotation = self._pose()
        speed = self._jacobian @ data.qvel
        force = _KP * (self._goal_xyz - xyz) - _KD * speed[:3]
        torque = _KP * rotation_error(self._goal_rotation, rotation) - _KD * speed[3:]

        inverse = np.linalg.inv(mass)
        through = inverse @ jacobian.T  # [7, 6]
        compliance = jacobian @ through
        wrench = np.concatenate(
            [
                np.linalg.solve(compliance[:3, :3], force),
                np.linalg.solve(compliance[3:, 3:], torque),
            ]
        )
        spare = mass @ (_NULL_KP * (self._initial - data.qpos[self._qpos]) - _NULL_KD * velocity)
        # (I - Jbar J)^T spare, without forming the matrix.
        spare -= jacobian.T @ np.linalg.solve(compliance, through.T @ spare)
        return jacobian.T @ wrench + data.qfrc_bias[self._qvel] + spare


def rotation_error(wanted: np.ndarray, present: np.ndarray) -> np.ndarray:
    """[3, 3], [3, 3] → [3]: half the sum of the axes' cross products, a small-angle error."""
    a, b = present, wanted
    return 0.5 * np.array(
        [
            np.dot(a[1], b[2]) - np.dot(a[2], b[1]),
            np.dot(a[2], b[0]) - np.dot(a[0], b[2]),
            np.dot(a[0], b[1]) - np.dot(a[1], b[0]),
        ]
    )


def rotation_of(vector: np.ndarray) -> np.ndarray:
    """Rotation vector [3] → [3, 3]."""
    angle = float(np.linalg.norm(vector))
    if angle == 0.0:
        return np.eye(3)
    x, y, z = vector / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)


def rotation_vector(rotation: np.ndarray) -> np.ndarray:
    """[3, 3] → rotation vector [3], of at most half a turn."""
    from scipy.spatial.transform import Rotation

    return Rotation.from_matrix(rotation).as_rotvec()
