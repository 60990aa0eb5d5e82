"""The tasks we pose, in words, and the cameras: plain data, no simulator needed to read it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from foundry_core.simulation.task_words import WORDS

PACKAGES = ("metaworld", "mujoco")
"""What outcomes depend on besides this code."""

CONTROL_HZ = 16.0
SUBSTEPS = 5
"""Meta-World steps per control step: it runs at 80 Hz, the policy at 16 Hz."""

XYZ = "robot__actual__poses__right::panda__xyz"
ROT6D = "robot__actual__poses__right::panda__rot_6d"
GRIPPER = "robot__actual__grippers__right::panda_hand"
ACTION_XYZ = "robot__action__poses__right::panda__xyz"
ACTION_ROT6D = "robot__action__poses__right::panda__rot_6d"
ACTION_GRIPPER = "robot__action__grippers__right::panda_hand"
MEASURED_FIELDS: Mapping[str, int] = {XYZ: 3, ROT6D: 6, GRIPPER: 1}
ACTION_FIELDS: Mapping[str, int] = {ACTION_XYZ: 3, ACTION_ROT6D: 6, ACTION_GRIPPER: 1}


@dataclass(frozen=True, kw_only=True)
class Mount:
    """Where a camera of ours stands instead of Meta-World's: position and aim [3] m in the world,
    upright, fovy in degrees."""

    position: tuple[float, float, float]
    aim: tuple[float, float, float]
    fovy: float


@dataclass(frozen=True, kw_only=True)
class Camera:
    """view: MuJoCo's camera name. upside_down: Meta-World mounts it rotated by 180 degrees.
    mount: the view is moved there; such a view serves no other camera. on_hand: it travels with
    the hand."""

    view: str
    upside_down: bool
    mount: Mount | None = None
    on_hand: bool = False


CAMERAS: Mapping[str, Camera] = {
    "scene": Camera(view="corner4", upside_down=True),
    "scene_left": Camera(view="corner", upside_down=True),
    "scene_far": Camera(view="corner2", upside_down=True),
    "scene_high": Camera(view="corner3", upside_down=True),
    "wrist": Camera(view="gripperPOV", upside_down=False, on_hand=True),
    # Stands where `scene` does, but everything a hand or an object can reach fills the picture:
    # at 64 pixels a lever is 7 wide here and 4 there.
    "workspace": Camera(
        view="topview",
        upside_down=False,
        mount=Mount(position=(0.75, 0.075, 0.7), aim=(0.02, 0.66, 0.15), fovy=36.0),
    ),
}


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """A Meta-World task. thing: the noun captions use for what the hand must reach.

    original: the instruction a policy is evaluated with. randomized: other ways of saying it, for
    training. held_out: one that is in no training data. max_steps: control steps; 100 is
    Meta-World's own limit of 500 steps at 80 Hz. given_away: how far doing nothing solves it, where
    it does (benchmarks/metaworld_idle.md).
    """

    name: str
    thing: str
    original: str
    held_out: str
    randomized: tuple[str, ...]
    max_steps: int = 100
    given_away: str = ""


_GIVEN_AWAY = {"handle-press": "a hand that sinks solves 22 of 25 scenarios"}
TASKS: Mapping[str, TaskSpec] = {
    f"{name}-v3": TaskSpec(
        name=f"{name}-v3",
        thing=thing,
        original=original,
        held_out=held_out,
        randomized=tuple(others),
        given_away=_GIVEN_AWAY.get(name, ""),
    )
    for name, (thing, original, held_out, *others) in WORDS.items()
}

TaskSet = Literal["mini", "mt10", "mt50"]
TASK_SETS: Mapping[TaskSet, tuple[str, ...]] = {
    # Screened to need eyes: a blind policy fails most of them (an object-aware one solves all).
    "mini": ("window-open-v3", "door-unlock-v3", "lever-pull-v3", "drawer-open-v3"),
    # Meta-World's own ten.
    "mt10": (
        "reach-v3",
        "push-v3",
        "pick-place-v3",
        "door-open-v3",
        "drawer-open-v3",
        "drawer-close-v3",
        "button-press-topdown-v3",
        "peg-insert-side-v3",
        "window-open-v3",
        "window-close-v3",
    ),
    "mt50": tuple(sorted(TASKS)),
}
