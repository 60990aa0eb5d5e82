"""What an ALOHA scene is: how its two arms are commanded, pictures, what its numbers mean. Planning
imports this."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from foundry_core.config.canonical import OmitWhen
from foundry_core.data.contract.fields import FieldContract
from foundry_core.data.contract.statements import CameraContract, DataContract
from foundry_core.pipeline.stage import Config

PACKAGES = ("gym-aloha", "dm-control", "mujoco")
"""What outcomes depend on besides this code."""

CONTROL_HZ = 50.0
CAMERA = "top"
SIDES = ("left", "right")
"""Left arm first, as gym-aloha orders its numbers."""

TASKS: Mapping[str, str] = {
    "transfer_cube": "pick up the red cube with the right arm and hand it to the left arm",
    "insertion": "insert the peg into the socket",
}
"""Task → instruction."""

Control = Literal["joints", "poses"]
_GRIPPER = FieldContract(dims=1, quantity="gripper", closed=0.0, open=1.0)
_PARTS: Mapping[Control, Mapping[str, FieldContract]] = {
    "joints": {
        "joint_position__{side}::vx300s": FieldContract(dims=6, quantity="joints", unit="rad"),
        "grippers__{side}::vx300s_hand": _GRIPPER,
    },
    "poses": {
        "poses__{side}::vx300s__xyz": FieldContract(
            dims=3, quantity="position", unit="m", frame="world"
        ),
        "poses__{side}::vx300s__rot_6d": FieldContract(
            dims=6, quantity="rotation", form="rot6d_rows", frame="world"
        ),
        "grippers__{side}::vx300s_hand": _GRIPPER,
    },
}


def part_names(control: Control, side: str) -> list[str]:
    """Of one arm: fields without `robot__actual__` or `robot__action__` before them."""
    return [name.format(side=side) for name in _PARTS[control]]


def fields(control: Control, prefix: str) -> dict[str, FieldContract]:
    """prefix "robot__actual__" or "robot__action__"; 14 numbers of joints, 20 of poses."""
    return {
        prefix + name.format(side=side): field
        for side in SIDES
        for name, field in _PARTS[control].items()
    }


class AlohaScene(Config):
    """control: what is measured and commanded. height, width: of the picture from above; the
    published ones are 480 x 640."""

    control: Annotated[Control, OmitWhen("joints")] = Field(
        "joints",
        description="joints: 14 numbers, six angles and a gripper an arm, as published; poses: 20, "
        "the hand's position and rotation and a gripper an arm",
    )
    height: int = Field(480, ge=16, le=480, description="of the picture from above, in pixels")
    width: int = Field(640, ge=16, le=640, description="of the picture from above, in pixels")

    def measured(self) -> dict[str, FieldContract]:
        return fields(self.control, "robot__actual__")

    def commanded(self) -> dict[str, FieldContract]:
        return fields(self.control, "robot__action__")

    def drawn(self) -> dict[str, CameraContract]:
        return {CAMERA: CameraContract(drawn=(self.height, self.width))}

    def data_contract(self) -> DataContract:
        """Of demonstrations that are recorded in it."""
        return DataContract(
            hz=CONTROL_HZ,
            cameras=self.drawn(),
            fields={**self.measured(), **self.commanded()},
        )
