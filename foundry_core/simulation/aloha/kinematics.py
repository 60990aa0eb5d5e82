"""Where the hands of ALOHA's two ViperX 300 S are, and which joints put them there. NumPy only.

The pose is that of the hand's body (`gripper_link`, as in gym-aloha's end-effector tasks), in the
world: x points out of the hand, y is the fingers' axis. Joints [6] in radians: waist, shoulder,
elbow, forearm roll, wrist angle, wrist roll. The last three axes meet in one point, so the inverse
is closed: no search, no tolerance, the same bits for the same numbers. It is exact but near a
straight wrist, which it damps.
"""

from dataclasses import dataclass

import numpy as np

from foundry_core.data.robot.poses import decode_rot6d, encode_rot6d
from foundry_core.errors import FoundryError

# Metres, from gym-aloha's model of the arm.
_SHOULDER_HEIGHT = 0.079 + 0.04805
_ELBOW_FORWARD, _ELBOW_UP = 0.05955, 0.3
_FOREARM = 0.2 + 0.1
_HAND = 0.069744
_UPPER_ARM = float(np.hypot(_ELBOW_FORWARD, _ELBOW_UP))
_BEND = float(np.arctan2(_ELBOW_FORWARD, _ELBOW_UP))
"""Of the line from shoulder to elbow against the upright, at joint 0."""

LOW = np.array([-3.14158, -1.85005, -1.76278, -3.14158, -1.8675, -3.14158])
HIGH = np.array([3.14158, 1.25664, 1.6057, 3.14158, 2.23402, 3.14158])
"""Limits of the joints, rad."""

_STRAIGHT = 0.35
"""Below this sine of the wrist's angle both rolls turn about nearly one axis, and a hand that goes
by would spin them by half a turn: there the first follows by the square of the share."""
_OUTSIDE_COST = 10.0
"""Of a radian beyond a limit, against a radian of way: a little out of reach is no reason to turn
the arm inside out."""
_AXIS = 1e-9


@dataclass(frozen=True, kw_only=True)
class Arm:
    """Where its base stands: position [3] m, turned about the vertical by `yaw`."""

    base: tuple[float, float, float]
    yaw: float


# 3.1416 and not pi is what the model says.
ARMS = {
    "left": Arm(base=(-0.469, 0.5, 0.0), yaw=0.0),
    "right": Arm(base=(0.469, 0.5, 0.0), yaw=3.1416),
}


def hand_pose(arm: Arm, joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Joints [..., 6] → (xyz [..., 3] m, rot6d [..., 6]) of the hand in the world."""
    waist, shoulder, elbow, roll, bend, twist = np.moveaxis(np.asarray(joints, float), -1, 0)
    upper = about_z(arm.yaw + waist) @ about_y(shoulder)
    fore = upper @ about_y(elbow)
    hand = fore @ about_x(roll) @ about_y(bend) @ about_x(twist)
    xyz = upper @ np.array([_ELBOW_FORWARD, 0, _ELBOW_UP]) + fore @ np.array([_FOREARM, 0, 0])
    xyz = xyz + hand @ np.array([_HAND, 0, 0]) + np.add(arm.base, (0, 0, _SHOULDER_HEIGHT))
    return xyz, encode_rot6d(hand)


def joints_for(arm: Arm, xyz: np.ndarray, rot6d: np.ndarray, near: np.ndarray) -> np.ndarray:
    """(xyz [3], rot6d [6]) → joints [6] within their limits, of the up to eight solutions the one
    nearest `near`. Out of reach: the arm stretched towards it, or folded. FoundryError for a rot6d
    that is no rotation."""
    if not (np.isfinite(xyz).all() and np.isfinite(rot6d).all()):
        raise FoundryError(f"no pose of a hand: {np.asarray(xyz).tolist()}, {rot6d.tolist()}")
    rotation = about_z(-arm.yaw) @ decode_rot6d(rot6d)
    place = about_z(-arm.yaw) @ (xyz - np.add(arm.base, (0, 0, _SHOULDER_HEIGHT)))
    found = np.array(_solutions(place - _HAND * rotation[:, 0], rotation, near))
    found = near + _wrapped(found - near)
    # A full turn further may be within the limits where this one is not.
    found = np.where(found > HIGH, found - 2 * np.pi, found)
    found = np.where(found < LOW, found + 2 * np.pi, found)
    outside = np.maximum(found - HIGH, LOW - found).clip(0).sum(axis=1)
    far = np.abs(found - near).sum(axis=1)
    best = int(np.argmin(far + _OUTSIDE_COST * outside))
    return np.clip(found[best], LOW, HIGH)


def _solutions(wrist: np.ndarray, rotation: np.ndarray, near: np.ndarray) -> list[np.ndarray]:
    """Joints [6] each, up to whole turns. wrist [3]: from the shoulder, in the base's axes."""
    out, up = float(np.hypot(wrist[0], wrist[1])), float(wrist[2])
    forward = float(np.arctan2(wrist[1], wrist[0])) if out > _AXIS else float(near[0])
    reach = out * out + up * up
    cosine = (reach - _UPPER_ARM**2 - _FOREARM**2) / (2 * _UPPER_ARM * _FOREARM)
    inner = float(np.arccos(np.clip(cosine, -1, 1)))
    found = []
    for waist, ahead in ((forward, out), (forward + np.pi, -out)):
        for turn in (inner, -inner):  # of the forearm against the line of the upper arm
            fold = np.arctan2(_FOREARM * np.sin(turn), _UPPER_ARM + _FOREARM * np.cos(turn))
            lean = np.arctan2(ahead, up) - fold  # of that line against the upright
            shoulder, elbow = lean - _BEND, turn + _BEND - np.pi / 2
            fore = about_z(waist) @ about_y(shoulder + elbow)
            for wrist_joints in _wrist(fore.T @ rotation, near):
                found.append(np.array([waist, shoulder, elbow, *wrist_joints]))
    return found


def _wrist(turn: np.ndarray, near: np.ndarray) -> list[np.ndarray]:
    """Roll, bend, roll [3] about x, y, x whose product is `turn`; a first roll of half a turn more
    and a bend to the other side give the same."""
    sine = float(np.hypot(turn[1, 0], turn[2, 0]))
    exact = float(np.arctan2(turn[1, 0], -turn[2, 0])) if sine > _AXIS else float(near[3])
    follow = min(1.0, (sine / _STRAIGHT) ** 2)
    found = []
    for first in (exact, exact + np.pi):
        roll = near[3] + follow * _wrapped(first - near[3])
        rest = about_x(-roll) @ turn
        bend = np.arctan2(-rest[2, 0], rest[0, 0])
        rest = about_y(-bend) @ rest
        found.append(np.array([roll, bend, np.arctan2(rest[2, 1], rest[1, 1])]))
    return found


def about_x(angle: np.ndarray | float) -> np.ndarray:
    """Angle [...] rad → [..., 3, 3]."""
    return _about(angle, 1, 2)


def about_y(angle: np.ndarray | float) -> np.ndarray:
    """Angle [...] rad → [..., 3, 3]."""
    return _about(angle, 2, 0)


def about_z(angle: np.ndarray | float) -> np.ndarray:
    """Angle [...] rad → [..., 3, 3]."""
    return _about(angle, 0, 1)


def _about(angle: np.ndarray | float, first: int, second: int) -> np.ndarray:
    """The rotation that turns axis `first` towards axis `second`."""
    angle = np.asarray(angle, float)
    rotation = np.broadcast_to(np.eye(3), (*angle.shape, 3, 3)).copy()
    cosine, sine = np.cos(angle), np.sin(angle)
    rotation[..., first, first] = rotation[..., second, second] = cosine
    rotation[..., second, first], rotation[..., first, second] = sine, -sine
    return rotation


def _wrapped(angle: np.ndarray) -> np.ndarray:
    """Into [-pi, pi)."""
    return (angle + np.pi) % (2 * np.pi) - np.pi
