"""From a data set's own fields to canonical ones, as data. No NumPy: planning imports this.

Canonical: metres, radians, rot6d as two rows, absolute targets, LBM's names; a gripper that is 0
when closed and 1 when open. Ready mappings lie in stage_configs/mappings/.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    ConfigDict,
    Field,
    PrivateAttr,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    field_validator,
    model_validator,
)

from foundry_core.config.canonical import OmitWhen
from foundry_core.config.documents import CONFIG_ROOT, load_document
from foundry_core.config.suggest import nearest
from foundry_core.data.config import PoseGroup, Turn
from foundry_core.data.contract.fields import (
    ANGLES,
    ROTATION_DIMS,
    UNITS,
    FieldContract,
    Quantity,
    RotationForm,
    check_unit,
)
from foundry_core.data.contract.rates import rates_agree
from foundry_core.data.contract.statements import CameraContract, DataContract, DepthContract
from foundry_core.errors import FoundryError
from foundry_core.pipeline.stage import Config


class Part(Config):
    """Some dimensions of a raw field. dims: (first, end); null takes all. scale: factor before the
    unit, as of actions that are given in shares of a largest step."""

    model_config = ConfigDict(populate_by_name=True)

    source: str = Field(alias="from", description="raw field, as `foundry data inspect` lists it")
    dims: tuple[int, int] | None = Field(
        None, description="[first, end) of the raw field; null: all"
    )
    scale: float = Field(1.0, description="factor on the raw numbers, before the unit")

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.dims is not None and not 0 <= self.dims[0] < self.dims[1]:
            raise ValueError(f"dims {list(self.dims)}: [first, end), first below end")
        return self


# A rigid transform of homogeneous coordinates, 4x4, laid flat row by row: the rotation, right of it
# the position, below them 0 0 0 1.
Pose4x4 = Literal["pose_4x4"]
POSE_DIMS = 16


class PositionPart(Part):
    """form: three numbers, or the last column of a pose that is one matrix."""

    unit: Literal["m", "cm", "mm"] = Field("m", description="of the raw numbers")
    form: Annotated[Literal["xyz"] | Pose4x4, OmitWhen("xyz")] = Field(
        "xyz", description="three numbers, or pose_4x4: the position in a 4x4 laid flat by rows"
    )

    @property
    def wanted(self) -> int:
        """Numbers that it is read from."""
        return POSE_DIMS if self.form == "pose_4x4" else 3


class RotationPart(Part):
    form: RotationForm | Pose4x4 = Field(
        description="how the raw numbers say a rotation; pose_4x4: within a 4x4 laid flat by rows"
    )
    unit: Literal["rad", "deg"] = Field("rad", description="of raw angles")

    @model_validator(mode="after")
    def _angles_have_a_unit(self) -> Self:
        if self.unit != "rad" and self.form not in ANGLES:
            raise ValueError(
                f"unit {self.unit!r} does not fit {self.form}, which has no unit: leave it out "
                f"(angles are {' and '.join(ANGLES)})"
            )
        return self

    @property
    def wanted(self) -> int:
        """Numbers that it is read from."""
        return POSE_DIMS if self.form == "pose_4x4" else ROTATION_DIMS[self.form]


class Delta(Config):
    """A pose that is a step from a measured one, pose `of`. world: added to its position, turned
    from the left, as OSC_POSE does; hand: within the measured hand's own axes."""

    of: str = Field(description="name of the measured pose that the step is added to")
    axes: Literal["world", "hand"] = Field(
        "world",
        description="world: added to the position, turned from the left; hand: in the measured "
        "hand's own axes",
    )


class PoseMapping(Config):
    """Becomes the fields `<name>__xyz` and `<name>__rot_6d`."""

    xyz: PositionPart = Field(description="where the position comes from")
    rotation: RotationPart = Field(description="where the rotation comes from")
    frame: str = Field(
        "", description="what the pose is relative to, in words; empty: as the source states"
    )
    delta: Delta | None = Field(
        None, description="the pose is a step from a measured one; null: absolute"
    )


class ValueMapping(Part):
    """Becomes a field of the same name. closed, open: raw values of a gripper at its ends; what
    lies beyond them is cut off."""

    quantity: Quantity = Field("other", description="what the numbers are")
    unit: str = Field(
        "", description="of the raw numbers; empty: none is stated. Joints are rad or deg"
    )
    closed: float | None = Field(None, description="raw value of a closed gripper")
    open: float | None = Field(None, description="raw value of an open gripper")

    @model_validator(mode="after")
    def _means_something(self) -> Self:
        if (self.quantity == "gripper") != (self.open is not None and self.closed is not None):
            raise ValueError("a gripper, and nothing else, has values `closed` and `open`")
        if self.open is not None and self.open == self.closed:
            raise ValueError(f"closed and open are both {self.open}")
        if self.quantity in ("position", "rotation"):
            raise ValueError("positions and rotations belong into `poses`")
        check_unit(self.quantity, self.unit)
        return self


class CameraMapping(Config):
    """depth: raw depth of the same view. rotate: both, degrees counter-clockwise. bgr: its channels
    are stored in the other order."""

    model_config = ConfigDict(populate_by_name=True)

    source: str = Field(alias="from", description="raw camera")
    depth: str | None = Field(None, description="raw depth of this camera")
    rotate: Turn | None = Field(None, description="degrees counter-clockwise")
    bgr: bool = Field(False, description="channels are stored in the order blue, green, red")


@dataclass(frozen=True)
class _Origin:
    """Where a mapping was read from, which is nothing of what it says: all are equal."""

    name: str = dataclass_field(default="", compare=False)


class RobotMapping(Config):
    """hz: where the source holds none, or within a quarter of its own, in place of it. instruction:
    for data without words. success: of every episode, where the source does not say. weight: one
    raw number per step, how often the window that is anchored there is drawn beside others. null
    takes away what an include has.
    """

    hz: float | None = Field(
        None,
        gt=0,
        description="control steps per second, near what the source states; null: the source's",
    )
    cameras: Mapping[str, CameraMapping] = Field(
        {}, description="our name → raw camera; null leaves one of an include out"
    )
    poses: Mapping[str, PoseMapping] = Field(
        {},
        description="our name → position and rotation; it becomes `<name>__xyz` and "
        "`<name>__rot_6d`",
    )
    fields: Mapping[str, ValueMapping] = Field({}, description="our name → raw field")
    instruction: str | None = Field(
        None, min_length=1, description="for data without words; null: the source's"
    )
    success: bool | None = Field(
        None, description="of every episode, where the source does not say; null: unknown"
    )
    weight: Annotated[Part | None, OmitWhen(None)] = Field(
        None, description="raw field of how often a step's window is drawn; null: all alike"
    )

    _origin: _Origin = PrivateAttr(_Origin())

    @property
    def called(self) -> str:
        """Name or file that it was read from, as the recipe says it; "" where the recipe holds it,
        and in a stage's own process."""
        return self._origin.name

    @field_validator("cameras", "poses", "fields", mode="before")
    @classmethod
    def _without_nulls(cls, named: Any) -> Any:
        if not isinstance(named, Mapping):
            return named
        return {name: one for name, one in named.items() if one is not None}

    @model_validator(mode="after")
    def _deltas_have_their_pose(self) -> Self:
        for name, pose in self.poses.items():
            of = pose.delta.of if pose.delta else None
            if of is not None and (of not in self.poses or self.poses[of].delta is not None):
                raise ValueError(f"pose {name!r} is a step from {of!r}, which is no absolute pose")
        return self

    def parts(self) -> Iterator[tuple[str, Part, int | None]]:
        """(entry, part, how many dimensions it must have) of all raw fields that are read."""
        for name, pose in self.poses.items():
            yield f"poses.{name}.xyz", pose.xyz, pose.xyz.wanted
            yield f"poses.{name}.rotation", pose.rotation, pose.rotation.wanted
        for name, value in self.fields.items():
            yield f"fields.{name}", value, None
        if self.weight is not None:
            yield "weight", self.weight, 1

    @property
    def sources(self) -> frozenset[str]:
        """Raw fields that are read."""
        return frozenset(part.source for _, part, _ in self.parts())

    @property
    def rotate(self) -> dict[str, Turn]:
        return {name: one.rotate for name, one in self.cameras.items() if one.rotate}

    def rate(self, stated: float | None) -> float | None:
        """Steps per second of mapped data. stated: by the source, null where it holds none.
        FoundryError where the mapping says another."""
        if self.hz is None or stated is None or rates_agree(self.hz, stated):
            return self.hz or stated
        raise FoundryError(
            f"hz of the mapping is {self.hz:g}, the source states {stated:g} Hz",
            f"set hz: {stated:g} in the mapping, or leave it out (hz: null): the source's counts. "
            "One that is at most a quarter beside it is taken, and counts in its place",
        )

    def contract(self, raw: DataContract) -> DataContract:
        """What the mapped data mean; raw: what the source states of itself. FoundryError where the
        two contradict each other."""
        fields: dict[str, FieldContract] = {}
        for name, pose in self.poses.items():
            frame = pose.frame or raw.field(pose.xyz.source).frame
            fields[f"{name}__xyz"] = FieldContract(
                dims=3, quantity="position", unit="m", frame=frame
            )
            fields[f"{name}__rot_6d"] = FieldContract(
                dims=6, quantity="rotation", form="rot6d_rows", frame=frame
            )
        for name, value in self.fields.items():
            # What keeps its name, and nothing else is said of, means what it meant.
            kept = value == ValueMapping(source=name)
            fields[name] = raw.field(name) if kept else _meaning(value)
        cameras = {
            name: raw.cameras.get(one.source, CameraContract())
            for name, one in self.cameras.items()
        }
        depth = {name: DepthContract() for name, one in self.cameras.items() if one.depth}
        return DataContract(hz=self.rate(raw.hz), cameras=cameras, depth=depth, fields=fields)


def _meaning(value: ValueMapping) -> FieldContract:
    if value.quantity == "gripper":  # shares of its stroke, whatever the raw numbers were
        return FieldContract(quantity="gripper", closed=0.0, open=1.0)
    unit = {"length": "m", "angle": "rad"}[UNITS[value.unit][0]] if value.unit else ""
    return FieldContract(quantity=value.quantity, unit=unit)


def relative_poses(fields: Mapping[str, FieldContract]) -> tuple[PoseGroup, ...]:
    """One group per arm: all its poses, relative to the one that is measured."""
    groups: dict[str, list[str]] = {}
    for name in fields:
        prefix = name.removesuffix("__xyz")
        parts = prefix.split("__")
        if prefix != name and len(parts) == 4 and parts[2] == "poses":
            groups.setdefault("__".join([parts[0], "actual", *parts[2:]]), []).append(prefix)
    return tuple(
        PoseGroup(reference=reference, poses=tuple(poses))
        for reference, poses in groups.items()
        if reference in poses
    )


def mapping_names() -> list[str]:
    """Of the ready ones."""
    return sorted(path.stem for path in (CONFIG_ROOT / "mappings").glob("*.yaml"))


def load_mapping(name: str) -> dict[str, Any]:
    """A ready mapping by name (also as an include names it, `mappings/droid`), or a YAML file by
    path, as a document."""
    path = Path(name).expanduser()
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise FoundryError(f"there is no mapping file {name!r}", f"ready: {mapping_names()}")
        return load_document(path)
    ready = name.removeprefix("mappings/")
    if ready not in mapping_names():
        raise FoundryError(
            f"there is no mapping {name!r}: a file is named with its .yaml",
            nearest(ready, mapping_names()),
        )
    return load_document(CONFIG_ROOT / "mappings" / f"{ready}.yaml")


def _loaded(value: Any, handler: ValidatorFunctionWrapHandler) -> RobotMapping:
    if not isinstance(value, str):
        made: RobotMapping = handler(value)
        return made
    try:
        document = load_mapping(value)
    except FoundryError as error:
        raise ValueError(f"{error.message} ({error.hint})") from None
    made = handler(document)
    made._origin = _Origin(value)
    return made


# A name or file stands for what it holds: that is what enters a stage's identity.
AnyMapping = Annotated[RobotMapping, WrapValidator(_loaded)]
