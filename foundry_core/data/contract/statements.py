"""What each side says of itself before it meets the other: data, policies, exams.

Conversion makes a `DataContract` from its source's; training turns those of its datasets into a
`PolicyContract`, which lies with the weights; a benchmark or a robot states an `ExamContract`.
`matching` holds the last two against each other, while planning and again before the first step.
"""

from collections.abc import Iterable, Mapping
from typing import Literal, Self

from pydantic import Field

from foundry_core.config.suggest import nearest
from foundry_core.data.config import DepthConfig, ImageConfig, Size, Turn
from foundry_core.data.contract.fields import FieldContract, canonical_field
from foundry_core.data.robot.transform_config import RobotInputs
from foundry_core.errors import FoundryError
from foundry_core.pipeline.stage import Config


class CameraContract(Config):
    """One camera's pictures, RGB. drawn: their size as it delivers them; null: unknown, or various.
    renderer: how a simulator draws them. stored: what conversion made of them. rotated: degrees
    counter-clockwise by which conversion turned them first."""

    drawn: Size | None = None
    renderer: str = ""
    rotated: Literal[0, 90, 180, 270] = 0
    stored: ImageConfig = ImageConfig()

    @property
    def size(self) -> tuple[int, int] | None:
        """(height, width) as stored; None where that is not known."""
        if self.stored.size is not None or self.drawn is None:
            return self.stored.size
        height, width = self.drawn
        return (width, height) if self.rotated % 180 else (height, width)


class DepthContract(Config):
    """One camera's depth, along its axis, 0 where there is none. In shards 16-bit PNG files beside
    its pictures, of `metres` a count; stored: only size and method matter."""

    metres: float = Field(1e-3, gt=0)
    rotated: Literal[0, 90, 180, 270] = 0
    stored: ImageConfig = ImageConfig()


class DataContract(Config):
    """Demonstrations or shards of them. hz null and absent fields: known once the data are read."""

    hz: float | None = Field(None, gt=0)
    cameras: Mapping[str, CameraContract] = {}
    depth: Mapping[str, DepthContract] = {}
    fields: Mapping[str, FieldContract] = {}

    def field(self, name: str) -> FieldContract:
        """Of a stored field: as stated, or what its name says."""
        return self.fields.get(name) or canonical_field(name)

    def converted(
        self,
        cameras: Iterable[str],
        fields: Iterable[str],
        image: ImageConfig,
        rotate: Mapping[str, Turn],
        depth: DepthConfig | None = None,
    ) -> Self:
        """What conversion makes of it."""
        metres = depth.metres if depth else 1.0
        deep = {
            name: DepthContract(metres=metres, stored=image, rotated=rotate.get(name, 0))
            for name in (depth.cameras if depth else ())
        }
        kept = {
            name: self.cameras.get(name, CameraContract()).model_copy(
                update={"stored": image, "rotated": rotate.get(name, 0)}
            )
            for name in cameras
        }
        return self.model_copy(
            update={
                "cameras": kept,
                "depth": deep,
                "fields": {name: self.field(name) for name in fields},
            }
        )


class ExamContract(Config):
    """What a benchmark, or a robot, shows and takes. What is empty or null it does not say."""

    hz: float | None = Field(None, gt=0)
    cameras: Mapping[str, CameraContract] = {}
    observes: Mapping[str, FieldContract] = {}
    commands: Mapping[str, FieldContract] = {}


class PolicyContract(Config):
    """From pixels to targets, as trained; it lies with the weights.

    cameras: those it looks through, in the order of its inputs, as its data had them. observes:
    stored fields it needs measured. commands: absolute targets it makes; an action of numbers in a
    row has them one after another in this order, that of the recipe. maskable: commands that
    some of its data lacked, so that it knows robots without them. image_size: (height, width) into
    the tower, null: as stored. ahead: steps it predicts from the present on.
    """

    hz: float | None = Field(None, gt=0)
    cameras: Mapping[str, CameraContract]
    observes: Mapping[str, FieldContract]
    commands: Mapping[str, FieldContract]
    maskable: tuple[str, ...] = ()
    image_size: Size | None = None
    ahead: int = Field(ge=1)
    execute_steps: int = Field(ge=1)

    @property
    def fields(self) -> Mapping[str, FieldContract]:
        """Meanings of all stored fields."""
        return {**self.observes, **self.commands}

    def ordered(
        self, cameras: Iterable[str], observes: Iterable[str], commands: Iterable[str]
    ) -> Self:
        """The same with its cameras and fields in these orders, each of all its names: a document
        does not keep the order of a mapping."""
        return self.model_copy(
            update={
                "cameras": {name: self.cameras[name] for name in cameras},
                "observes": {name: self.observes[name] for name in observes},
                "commands": {name: self.commands[name] for name in commands},
            }
        )


def policy_contract(
    inputs: RobotInputs,
    execute_steps: int,
    datasets: Mapping[str, DataContract],
    *,
    mask_missing: bool = False,
) -> PolicyContract:
    """What a policy trained on these datasets (label → contract) sees and says.

    FoundryError where two of them give one name different meanings, or one lacks what is asked for;
    mask_missing: low-dimensional fields may be lacking.
    """
    cameras = {name: _camera(name, datasets) for name in inputs.cameras}
    for name in inputs.cameras if inputs.depth else ():
        for label, data in datasets.items():
            if data.cameras and name not in data.depth:
                raise FoundryError(
                    f"dataset {label!r} is converted without the depth of camera {name!r}",
                    "name it in the conversion's depth.cameras, or set inputs.depth=false",
                )
    observes = {name: _field(name, datasets, mask_missing) for name in inputs.measured_fields}
    commands = {name: _field(name, datasets, mask_missing) for name in inputs.target_fields}
    return PolicyContract(
        hz=_rate(datasets),
        cameras=cameras,
        observes=observes,
        commands=commands,
        maskable=tuple(
            name
            for name in commands
            if any(data.fields and name not in data.fields for data in datasets.values())
        ),
        image_size=inputs.image.size,
        ahead=inputs.ahead,
        execute_steps=execute_steps,
    )


def _camera(name: str, datasets: Mapping[str, DataContract]) -> CameraContract:
    """One for all datasets; sizes and renderers that differ are not known."""
    found: CameraContract | None = None
    first = ""
    for label, data in datasets.items():
        if data.cameras and name not in data.cameras:
            raise FoundryError(
                f"dataset {label!r} is converted without camera {name!r}",
                nearest(name, data.cameras),
            )
        one = data.cameras.get(name, CameraContract())
        if found is None:
            found, first = one, label
            continue
        for what in ("stored", "rotated"):
            ours, theirs = getattr(found, what), getattr(one, what)
            if ours != theirs:
                raise FoundryError(
                    f"camera {name!r} is converted with {what} = {ours} in {first!r} and "
                    f"{theirs} in {label!r}: one policy cannot be shown both",
                    "convert the datasets of one mix alike",
                )
        drawn = found.drawn if found.drawn == one.drawn else None
        renderer = found.renderer if found.renderer == one.renderer else ""
        found = found.model_copy(update={"drawn": drawn, "renderer": renderer})
    return found or CameraContract()


def _field(name: str, datasets: Mapping[str, DataContract], may_lack: bool) -> FieldContract:
    stated: dict[str, FieldContract] = {}
    for label, data in datasets.items():
        if not data.fields:
            continue
        if name in data.fields:
            stated[label] = data.fields[name]
        elif not may_lack:
            raise FoundryError(
                f"dataset {label!r} has no field {name!r}", nearest(name, data.fields)
            )
    if not stated:
        return canonical_field(name)
    (first, meaning), *others = stated.items()
    for label, other in others:
        if other != meaning:
            raise FoundryError(
                f"{name!r} is {meaning.text()} in dataset {first!r}, {other.text()} in {label!r}",
                "bring both to one meaning when converting",
            )
    return meaning


def _rate(datasets: Mapping[str, DataContract]) -> float | None:
    rates = {label: data.hz for label, data in datasets.items() if data.hz is not None}
    if len(set(rates.values())) > 1:
        listed = ", ".join(f"{label!r} {hz:g} Hz" for label, hz in rates.items())
        raise FoundryError(
            f"robot datasets have different rates: {listed}",
            "a policy acts at one rate: train on datasets of one",
        )
    return next(iter(rates.values()), None)
