"""The tasks we pose, in words, and the cameras: plain data, no simulator needed to read it."""

from collections.abc import Mapping
from dataclasses import dataclass

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
    training. max_steps: control steps; 100 is Meta-World's own limit of 500 steps at 80 Hz.
    """

    name: str
    thing: str
    original: str
    randomized: tuple[str, ...]
    max_steps: int = 100


# name: (thing, original, *randomized)
_WORDS = {
    "window-open": (
        "handle",
        "open the window",
        "slide the window open",
        "push the window handle to the right",
        "move the window's handle until it is open",
        "let some air in through the window",
    ),
    "door-unlock": (
        "lock",
        "unlock the door",
        "turn the lock so that the door opens",
        "move the lock of the door to its open position",
        "release the lock of the door",
        "undo the lock on the safe",
    ),
    "lever-pull": (
        "lever",
        "pull the lever up",
        "raise the lever",
        "lift the lever until it stands upright",
        "bring the lever to its upper position",
        "get below the lever and move it upward",
    ),
    "drawer-open": (
        "handle",
        "open the drawer",
        "pull the drawer open",
        "grab the drawer's handle and pull it out",
        "slide the drawer towards the robot",
        "pull out the green drawer",
    ),
    "button-press-topdown": (
        "button",
        "press the button from above",
        "push the button down",
        "come down on the red button",
        "hit the button on top of the box",
        "press down the red button",
    ),
    "push": (
        "puck",
        "push the puck to the goal",
        "slide the puck onto the marker",
        "move the puck across the table to the goal",
        "shove the puck until it covers the target",
        "take the puck along to the goal",
    ),
    "sweep-into": (
        "puck",
        "sweep the puck into the hole",
        "push the puck into the opening of the table",
        "drop the puck into the hole",
        "make the puck fall through the hole",
        "brush the puck into the hole",
    ),
    "handle-press": (
        "handle",
        "press the handle down",
        "push down the handle",
        "lower the handle of the box",
        "bring the handle to its lowest position",
        "press on the handle from above",
    ),
    "handle-pull": (
        "handle",
        "pull the handle up",
        "raise the handle",
        "lift the handle of the box",
        "bring the handle to its highest position",
        "pull upward on the handle",
    ),
    "faucet-close": (
        "faucet",
        "close the faucet",
        "turn the faucet off",
        "stop the water",
        "shut the tap",
        "swing the faucet's handle until it is closed",
    ),
    "door-close": (
        "door",
        "close the door",
        "push the door shut",
        "swing the door closed",
        "shut the door of the box",
        "move the door back into its frame",
    ),
    "drawer-close": (
        "drawer",
        "close the drawer",
        "push the drawer shut",
        "slide the drawer back in",
        "shut the green drawer",
        "push the drawer away from the robot",
    ),
    "coffee-button": (
        "button",
        "press the button of the coffee machine",
        "start the coffee machine",
        "push the button on the coffee machine",
        "make a coffee",
        "switch the coffee machine on",
    ),
    "plate-slide": (
        "plate",
        "slide the plate into the goal",
        "push the plate forward into the cabinet",
        "shoot the plate into the net",
        "move the plate under the cover",
        "shove the plate away from the robot into the goal",
    ),
    "peg-unplug-side": (
        "peg",
        "unplug the peg",
        "pull the peg out of the box",
        "take the peg out of its hole sideways",
        "remove the plug",
        "draw the peg out",
    ),
    "reach": (
        "puck",
        "reach the goal",
        "move the hand to the marker",
        "bring the gripper to the target",
        "go to the marked point",
        "touch the goal with the gripper",
    ),
}

TASKS: Mapping[str, TaskSpec] = {
    f"{name}-v3": TaskSpec(
        name=f"{name}-v3", thing=thing, original=original, randomized=tuple(others)
    )
    for name, (thing, original, *others) in _WORDS.items()
}
