"""A scripted expert for ALOHA's cube: the right hand picks it up from above, both hands meet in
front of the robot, each at one half of it, and the left one takes it.

It plans once, from where the cube lies, and plays keyframes of poses; lengths are metres in the
world, times control steps of 1/50 s.
"""

from dataclasses import dataclass

import numpy as np

from foundry_core.data.robot.poses import decode_rot6d, encode_rot6d
from foundry_core.simulation.aloha.config import SIDES, part_names
from foundry_core.simulation.aloha.kinematics import ARMS, about_y, about_z
from foundry_core.simulation.aloha.simulator import AlohaSimulator

_TIPS = 0.1537
"""From the hand's origin to the finger tips."""
_CUBE = 0.04
_MEET = np.array([0.0, 0.5, 0.25])
_ABOVE, _APART, _GAP = 0.08, 0.10, 0.004
_OPEN, _CLOSED = 1.0, 0.0
LAST_STEP = 370
"""After it nothing moves any more."""


@dataclass(frozen=True, kw_only=True)
class Keyframe:
    """Where a hand is at a step: tips [3], rotation [3, 3], gripper 0 to 1. Between two the hand
    goes straight."""

    step: int
    tips: np.ndarray
    rotation: np.ndarray
    gripper: float


class Expert:
    """Plays one episode of transfer_cube from where the simulator is."""

    def __init__(self, simulator: AlohaSimulator) -> None:
        cube = simulator.thing()
        self._routes = {
            side: [_now(simulator, side), *route]
            for side, route in (("left", _left()), ("right", _right(cube)))
        }

    def targets(self, step: int) -> dict[str, np.ndarray]:
        """Absolute targets of both hands: 20 numbers."""
        found: dict[str, np.ndarray] = {}
        for side in SIDES:
            place, rotation, gripper = _between(self._routes[side], step)
            xyz = place - _TIPS * rotation[:, 0]
            values = (xyz, encode_rot6d(rotation), np.array([gripper]))
            names = (f"robot__action__{part}" for part in part_names("poses", side))
            found |= dict(zip(names, values, strict=True))
        return found


def _right(cube: np.ndarray) -> list[Keyframe]:
    """The wrist tilts only where the arm points straight ahead, and so never spins its forearm."""
    down, ahead = _pointing("right", np.pi / 2), _pointing("right", 0.0)
    over = np.array([*cube[:2], _CUBE / 2])
    above, lifted = over + np.array([0, 0, _ABOVE]), over + np.array([0, 0, 2 * _ABOVE])
    met = _MEET + np.array([_GAP, 0, 0])
    apart = met + np.array([_APART, 0, 0])
    return [
        Keyframe(step=40, tips=apart, rotation=down, gripper=_OPEN),
        Keyframe(step=80, tips=above, rotation=down, gripper=_OPEN),
        Keyframe(step=105, tips=over, rotation=down, gripper=_OPEN),
        Keyframe(step=130, tips=over, rotation=down, gripper=_CLOSED),
        Keyframe(step=155, tips=lifted, rotation=down, gripper=_CLOSED),
        Keyframe(step=190, tips=apart, rotation=down, gripper=_CLOSED),
        Keyframe(step=230, tips=apart, rotation=ahead, gripper=_CLOSED),
        Keyframe(step=255, tips=met, rotation=ahead, gripper=_CLOSED),
        Keyframe(step=325, tips=met, rotation=ahead, gripper=_CLOSED),
        Keyframe(step=340, tips=met, rotation=ahead, gripper=_OPEN),
        Keyframe(step=LAST_STEP, tips=apart, rotation=ahead, gripper=_OPEN),
    ]


def _left() -> list[Keyframe]:
    ahead, met = _pointing("left", 0.0), _MEET - np.array([_GAP, 0, 0])
    waiting = met - np.array([_APART, 0, 0])
    return [
        Keyframe(step=60, tips=waiting, rotation=ahead, gripper=_OPEN),
        Keyframe(step=265, tips=waiting, rotation=ahead, gripper=_OPEN),
        Keyframe(step=300, tips=met, rotation=ahead, gripper=_OPEN),
        Keyframe(step=325, tips=met, rotation=ahead, gripper=_CLOSED),
    ]


def _now(simulator: AlohaSimulator, side: str) -> Keyframe:
    xyz, rot6d = simulator.hand(side)
    rotation = decode_rot6d(rot6d)
    return Keyframe(step=0, tips=xyz + _TIPS * rotation[:, 0], rotation=rotation, gripper=_CLOSED)


def _pointing(side: str, pitch: float) -> np.ndarray:
    """Away from its arm's base, `pitch` below the horizon."""
    return about_z(ARMS[side].yaw) @ about_y(pitch)


def _between(route: list[Keyframe], step: int) -> tuple[np.ndarray, np.ndarray, float]:
    """(tips, rotation, gripper) at a step; after the last keyframe what it says."""
    before = [frame for frame in route if frame.step <= step][-1]
    after = next((frame for frame in route if frame.step > step), before)
    share = (step - before.step) / max(after.step - before.step, 1) if after is not before else 0.0

    def mixed(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (1 - share) * a + share * b

    rotation = decode_rot6d(mixed(encode_rot6d(before.rotation), encode_rot6d(after.rotation)))
    gripper = (1 - share) * before.gripper + share * after.gripper
    return mixed(before.tips, after.tips), rotation, gripper
