"""What the numbers of a low-dimensional field mean. No NumPy: planning imports this.

Canonical fields follow LBM's names; what a name alone tells is what shards hold unless their source
says otherwise: metres, rot6d as two rows, a gripper's opening in metres.
"""

from typing import Literal, Self

from pydantic import model_validator

from foundry_core.data.robot.transform_config import RELATIVE
from foundry_core.pipeline.stage import Config

Quantity = Literal["position", "rotation", "gripper", "joints", "other"]
# rot6d: two rows or two columns of the matrix, one after the other or interleaved.
# euler_xyz: turns about the fixed axes x, then y, then z.
RotationForm = Literal[
    "rot6d_rows",
    "rot6d_rows_interleaved",
    "rot6d_columns",
    "rot6d_columns_interleaved",
    "matrix",
    "quaternion_xyzw",
    "quaternion_wxyz",
    "axis_angle",
    "euler_xyz",
]
ROTATION_DIMS: dict[str, int] = {
    "rot6d_rows": 6,
    "rot6d_rows_interleaved": 6,
    "rot6d_columns": 6,
    "rot6d_columns_interleaved": 6,
    "matrix": 9,
    "quaternion_xyzw": 4,
    "quaternion_wxyz": 4,
    "axis_angle": 3,
    "euler_xyz": 3,
}
# unit → (what it measures, how many of the SI unit it is)
UNITS: dict[str, tuple[str, float]] = {
    "m": ("length", 1.0),
    "mm": ("length", 1e-3),
    "cm": ("length", 1e-2),
    "rad": ("angle", 1.0),
    "deg": ("angle", 0.017453292519943295),
}
# What the unit of a quantity may measure. Joints turn: one that slides is a field of its own.
_MEASURES: dict[str, tuple[str, str]] = {
    "position": ("length", "positions are lengths"),
    "rotation": ("angle", "rotations are angles"),
    "joints": (
        "angle",
        "joints are angles; a joint that slides is a field of its own of quantity other",
    ),
}
# Forms whose numbers are angles.
ANGLES = ("axis_angle", "euler_xyz")


def check_unit(quantity: Quantity, unit: str) -> None:
    """ValueError for a unit that there is not, or that does not fit the quantity, with those that
    do. A gripper's numbers may be lengths, angles or shares, and so may those of `other`."""
    if not unit:
        return
    if unit not in UNITS:
        raise ValueError(f"unit {unit!r} is none of {', '.join(UNITS)}")
    measures, rule = _MEASURES.get(quantity, ("", ""))
    if measures and UNITS[unit][0] != measures:
        fitting = " or ".join(name for name, (what, _) in UNITS.items() if what == measures)
        raise ValueError(f"unit {unit!r} does not fit {quantity}: say {fitting} ({rule})")


class FieldContract(Config):
    """Meaning of one field.

    dims: 0 where it is not known before the data are read. unit: "" where there is none, or it is
    unknown; both sides must state one for a difference to be seen, and so with frame. steps: a
    target, or the change from what is measured. closed, open: a gripper's values at its ends.
    """

    dims: int = 0
    quantity: Quantity = "other"
    unit: str = ""
    frame: str = ""
    form: RotationForm | None = None
    steps: Literal["absolute", "delta"] = "absolute"
    closed: float | None = None
    open: float | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        check_unit(self.quantity, self.unit)
        if (self.quantity == "rotation") != (self.form is not None):
            raise ValueError(f"a {self.quantity} has form {self.form}: rotations, and only they")
        if self.form is not None and self.unit and self.form not in ANGLES:
            raise ValueError(f"{self.form} has no unit")
        if self.form is not None and self.dims not in (0, ROTATION_DIMS[self.form]):
            raise ValueError(f"{self.form} has {ROTATION_DIMS[self.form]} dimensions")
        if (self.closed is None) != (self.open is None) or (
            self.open is not None and self.open == self.closed
        ):
            raise ValueError(f"closed {self.closed} and open {self.open}: give two unequal ends")
        return self

    def text(self) -> str:
        """'rotation, quaternion_xyzw': what messages and tables show."""
        ends = f"closed {self.closed:g}, open {self.open:g}" if self.open is not None else ""
        steps = "" if self.steps == "absolute" else self.steps
        frame = f"in the {self.frame} frame" if self.frame else ""
        parts = (self.quantity, self.form or "", self.unit, frame, steps, ends)
        return ", ".join(part for part in parts if part)


def canonical_field(name: str, dims: int = 0) -> FieldContract:
    """What LBM's naming says of a stored field."""
    stored = name.removesuffix(RELATIVE)
    if stored.endswith("__xyz"):
        return FieldContract(dims=3, quantity="position", unit="m")
    if stored.endswith("__rot_6d"):
        return FieldContract(dims=6, quantity="rotation", form="rot6d_rows")
    if "__grippers__" in stored:
        return FieldContract(dims=dims, quantity="gripper")
    if "joint_position" in stored:
        return FieldContract(dims=dims, quantity="joints", unit="rad")
    return FieldContract(dims=dims)
