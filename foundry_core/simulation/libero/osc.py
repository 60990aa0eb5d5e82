"""LIBERO's controller (robosuite's OSC_POSE with fixed gains) with what it repeats left out.

The shipped one computes positions, contacts and velocities three times a substep: before the
controller, inside it, and in the step itself. They come out alike each time, so here they are
computed once. The contact solver's passes are not alike: each begins at what the one before found,
and what it stops at depends on that. They are all made, and the matrices of the control law are
robosuite's own functions (one of them rounds the goal's rotation to float32): states are equal to
the shipped ones to the last bit (tests/simulation/libero).
"""

from typing import Any

import numpy as np

SUBSTEPS = 25
STEP_M, STEP_RAD = 0.05, 0.5
"""What an action of 1 moves the goal by, from where the hand is."""

_KP = 150.0
_KD = 2 * np.sqrt(_KP)
_GRIPPER_SPEED = 0.01
"""Of a finger's command, per substep: from open to closed takes eight control steps."""


class PlainController:
    """Drives one robosuite robot's arm and gripper. Shapes: action [7], joints [7], torques [7]."""

    def __init__(self, mujoco: Any, model: Any, data: Any, robot: Any) -> None:
        from robosuite.utils import control_utils

        self._mujoco, self._model, self._data = mujoco, model, data
        self._law = control_utils
        self._site = robot.eef_site_id
        self._qpos = np.array(robot._ref_joint_pos_indexes)
        self._qvel = np.array(robot._ref_joint_vel_indexes)
        self._arm = np.array(robot._ref_joint_actuator_indexes)
        self._hand = np.array(robot._ref_joint_gripper_actuator_indexes)
        low, high = robot.torque_limits
        self._low, self._high = np.array(low), np.array(high)
        ends = model.actuator_ctrlrange[self._hand]
        self._middle, self._reach = ends.mean(axis=1), (ends[:, 1] - ends[:, 0]) / 2
        self._linear, self._angular = np.zeros((3, model.nv)), np.zeros((3, model.nv))
        self._mass = np.zeros((model.nv, model.nv))
        self._fingers = np.zeros(2)
        self._first = True

    def reset(self, initial_joints: np.ndarray) -> None:
        """The goal becomes the present pose. initial_joints: where the arm's spare degree of
        freedom is drawn to."""
        self._initial = initial_joints.copy()
        self._goal_xyz, self._goal_rotation = self._pose()
        self._fingers = np.zeros(2)
        self._first = True

    def step(self, action: np.ndarray) -> None:
        """One control step: 25 substeps of 2 ms. The derived quantities of the data are left as of
        the last substep's beginning, as MuJoCo's own step leaves them."""
        mujoco, model, data = self._mujoco, self._model, self._data
        action = np.clip(action, -1, 1)
        for substep in range(SUBSTEPS):
            mujoco.mj_step1(model, data)
            # The shipped controller has looked at the simulator already when it was reset.
            for _ in range(1 if self._first else 2):
                mujoco.mj_forwardSkip(model, data, mujoco.mjtStage.mjSTAGE_VEL, 1)
            self._first = False
            if not substep:
                self._aim(action)
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
            self._goal_rotation = self._law.set_goal_orientation(STEP_RAD * action[3:6], rotation)

    def _close(self, effort: float) -> np.ndarray:
        moved = self._fingers + np.array([-1.0, 1.0]) * _GRIPPER_SPEED * np.sign(effort)
        self._fingers = np.clip(moved, -1, 1)
        return self._middle + self._reach * self._fingers

    def _torques(self) -> np.ndarray:
        """In the shipped order of operations, and with arrays of its memory layout: both show in
        the last bit."""
        model, data, law, arm = self._model, self._data, self._law, self._qvel
        self._mujoco.mj_jacSite(model, data, self._linear, self._angular, self._site)
        self._mujoco.mj_fullM(model, self._mass, data.qM)
        mass = self._mass[arm, :][:, arm]
        linear, angular = self._linear[:, arm], self._angular[:, arm]
        both = np.vstack([linear, angular])
        xyz, rotation = self._pose()
        turn = law.orientation_error(self._goal_rotation, rotation)
        force = _KP * (self._goal_xyz - xyz) - _KD * np.dot(self._linear, data.qvel)
        torque = _KP * turn - _KD * np.dot(self._angular, data.qvel)
        _, of_force, of_torque, spare = law.opspace_matrices(mass, both, linear, angular)
        wrench = np.concatenate([np.dot(of_force, force), np.dot(of_torque, torque)])
        joints, velocities = data.qpos[self._qpos], data.qvel[arm]
        drawn = law.nullspace_torques(mass, spare, self._initial, joints, velocities)
        return np.dot(both.T, wrench) + data.qfrc_bias[arm] + drawn


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
