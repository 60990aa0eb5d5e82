"""The hands of ALOHA's arms: where they are by the maker's numbers, and back to the joints."""

import itertools

import h5py
import numpy as np
import pytest

from foundry_core.data.robot.poses import decode_rot6d
from foundry_core.errors import FoundryError
from foundry_core.simulation.aloha.kinematics import (
    ARMS,
    HIGH,
    LOW,
    about_x,
    about_y,
    about_z,
    hand_pose,
    joints_for,
)
from tests.real_data import ABSENT, FORMATS

START = np.array([0, -0.96, 1.16, 0, -0.3, 0])


@pytest.mark.parametrize(
    ("side", "xyz"),
    [("left", [-0.31718881, 0.5, 0.29525084]), ("right", [0.31718881, 0.49999888, 0.29525084])],
)
def test_the_start_pose_is_where_gym_aloha_says_that_the_hands_are(side, xyz):
    """Written into its end-effector tasks, for `gripper_link`."""
    found, rot6d = hand_pose(ARMS[side], START)
    np.testing.assert_allclose(found, xyz, atol=1e-8)
    pitch = about_z(ARMS[side].yaw) @ about_y(-0.96 + 1.16 - 0.3)
    np.testing.assert_allclose(decode_rot6d(rot6d), pitch, atol=1e-12)


def test_the_product_of_the_makers_screws_gives_the_same_pose():
    """The arm at rest as its maker describes it: each joint's axis and a point on it, from the
    base."""
    screws = [
        ([0, 0, 1], [0, 0, 0]),
        ([0, 1, 0], [0, 0, 0.12705]),
        ([0, 1, 0], [0.05955, 0, 0.42705]),
        ([1, 0, 0], [0, 0, 0.42705]),
        ([0, 1, 0], [0.35955, 0, 0.42705]),
        ([1, 0, 0], [0, 0, 0.42705]),
    ]
    turns = {(1, 0, 0): about_x, (0, 1, 0): about_y, (0, 0, 1): about_z}
    rng = np.random.default_rng(0)
    for _ in range(20):
        joints = rng.uniform(LOW, HIGH)
        rotation, offset = np.eye(3), np.zeros(3)
        for angle, (axis, point) in zip(joints, screws, strict=True):
            turn = turns[tuple(axis)](angle)
            offset = offset + rotation @ (np.array(point) - turn @ point)
            rotation = rotation @ turn
        xyz = rotation @ [0.35955 + 0.069744, 0, 0.42705] + offset
        found, rot6d = hand_pose(ARMS["left"], joints)
        np.testing.assert_allclose(found - ARMS["left"].base, xyz, atol=1e-12)
        np.testing.assert_allclose(decode_rot6d(rot6d), rotation, atol=1e-12)


def test_a_pose_within_reach_is_reached_exactly():
    rng = np.random.default_rng(1)
    tried = 0
    for index in range(600):
        arm = ARMS["left" if index % 2 else "right"]
        joints = rng.uniform(LOW, HIGH)
        if abs(np.sin(joints[4])) < 0.35:  # a straight wrist is damped
            continue
        xyz, rot6d = hand_pose(arm, joints)
        near = np.clip(joints + rng.normal(0, 0.05, 6), LOW, HIGH)
        found = joints_for(arm, xyz, rot6d, near)
        assert (found >= LOW).all()
        assert (found <= HIGH).all()
        again, turned = hand_pose(arm, found)
        np.testing.assert_allclose(again, xyz, atol=1e-12)
        np.testing.assert_allclose(turned, rot6d, atol=1e-12)
        np.testing.assert_array_equal(found, joints_for(arm, xyz, rot6d, near))
        tried += 1
    assert tried > 300


def test_a_path_of_joints_comes_back_from_its_poses():
    """Joint by joint: the solution stays on its branch, each step from the one before."""
    path = START + np.linspace(0, 1, 80)[:, None] * np.array([0.5, 0.4, -0.6, 0.3, -0.5, 0.7])
    near = path[0]
    for joints in path:
        near = joints_for(ARMS["right"], *hand_pose(ARMS["right"], joints), near=near)
        np.testing.assert_allclose(near, joints, atol=5e-3)
    np.testing.assert_allclose(near, path[-1], atol=1e-9)


@pytest.mark.skipif(not (FORMATS / "hdf5_aloha_sim").is_dir(), reason=ABSENT)
def test_recorded_joints_come_back_from_the_poses_of_both_hands():
    recorded = sorted((FORMATS / "hdf5_aloha_sim").rglob("*.hdf5"))[0]
    with h5py.File(recorded) as file:
        rows = np.asarray(file["action"], float)
    for side, columns in (("left", slice(0, 6)), ("right", slice(7, 13))):
        path = np.clip(rows[:, columns], LOW, HIGH)
        for before, joints in itertools.pairwise(path):
            pose = hand_pose(ARMS[side], joints)
            # As in the simulator: near what was commanded before.
            found = joints_for(ARMS[side], *pose, near=before)
            np.testing.assert_allclose(found, joints, atol=0.02)
            np.testing.assert_allclose(hand_pose(ARMS[side], found)[0], pose[0], atol=1e-3)
            np.testing.assert_allclose(
                joints_for(ARMS[side], *pose, near=joints), joints, atol=1e-9
            )


def test_a_hand_that_passes_a_straight_wrist_does_not_spin():
    """The exact solution turns both rolls by half a turn within a few steps there."""
    near = np.array([0, -0.5, 0.8, 0.0, -0.4, 0.0])
    xyz, _ = hand_pose(ARMS["left"], near)
    for pitch in np.linspace(-0.1, 0.9, 50):
        aside = about_z(0.03) @ about_y(pitch)
        joints = joints_for(ARMS["left"], xyz, aside[:2].ravel(), near)
        assert np.abs(joints - near).max() < 0.25
        near = joints
    assert abs(near[3]) < 0.5
    turned = decode_rot6d(hand_pose(ARMS["left"], near)[1])
    np.testing.assert_allclose(turned, about_z(0.03) @ about_y(0.9), atol=0.02)


def test_beyond_reach_the_arm_stretches_towards_it():
    far = np.array([1.5, 0.5, 0.127])
    joints = joints_for(ARMS["left"], far, np.array([1.0, 0, 0, 0, 1, 0]), START)
    xyz, _ = hand_pose(ARMS["left"], joints)
    assert xyz[0] > -0.469 + 0.6
    np.testing.assert_allclose(xyz[1], 0.5, atol=1e-9)


def test_what_is_no_pose_is_refused():
    with pytest.raises(FoundryError, match="no pose of a hand"):
        joints_for(ARMS["left"], np.array([np.nan, 0, 0]), np.array([1.0, 0, 0, 0, 1, 0]), START)
    with pytest.raises(FoundryError, match="spans no rotation"):
        joints_for(ARMS["left"], np.zeros(3), np.zeros(6), START)
