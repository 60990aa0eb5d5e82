"""Which key of a protocol's observation is which camera and field, and how actions are laid out.

A `ServingMapping` is a `RobotMapping`, as conversion takes for data, whose raw fields are the keys
of an observation ("observation/state", "states") and, for what is commanded, `actions`. So rotation
forms, gripper ends, units and deltas are said once and in one way. Ready ones lie in
stage_configs/serving/; without one, fields go by their own names (`plain`).
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
from pydantic import Field, model_validator

from foundry_core.config.documents import CONFIG_ROOT, load_document
from foundry_core.config.suggest import nearest
from foundry_core.config.validation import validate
from foundry_core.data.contract.fields import FieldContract
from foundry_core.data.contract.statements import (
    CameraContract,
    DataContract,
    ExamContract,
    PolicyContract,
)
from foundry_core.data.images import rotate
from foundry_core.data.mapping.apply import mapped_fields, raw_fields, toward
from foundry_core.data.mapping.config import (
    CameraMapping,
    Part,
    PoseMapping,
    PositionPart,
    RobotMapping,
    RotationPart,
    ValueMapping,
)
from foundry_core.data.robot.poses import encode_rot6d
from foundry_core.data.robot.rotations import to_matrix
from foundry_core.errors import FoundryError
from foundry_core.pipeline.stage import Config
from foundry_core.serving.adapted import Adapter
from foundry_core.serving.checks import own_exam

ACTIONS = "actions"
AnyPart = TypeVar("AnyPart", bound=Part)
_FOLDER = CONFIG_ROOT / "serving"


class ServingMapping(Config):
    """robot: raw fields are keys of the observation, paths of nested ones joined by `/`; what comes
    `from: actions` is commanded. A camera's `rotate` turns a client's picture to how the policy's
    data had it before they turned it themselves. tracking: the share of the way to a target that
    the robot goes in one step, for chunks of deltas that a client plays. mirrored: of what is sent
    to somebody else's policy, key → {dimension: the one whose negative it is}, as the second finger
    of a gripper. asks: vla-eval's observation_params, what a benchmark is to show.
    execute_steps: of a chunk of somebody else's policy."""

    instruction: str = Field(description="key of the instruction")
    tracking: float = Field(
        1.0, gt=0, le=1, description="share of the way to a target that the robot goes in one step"
    )
    execute_steps: int = Field(
        8, ge=1, description="carried out of a chunk of somebody else's policy"
    )
    robot: RobotMapping = Field(
        description="raw fields are keys of the observation; what comes from `actions` is commanded"
    )
    mirrored: Mapping[str, Mapping[int, int]] = Field(
        {},
        description="key → {dimension: the one whose negative it is}, of what is sent to somebody "
        "else's policy",
    )
    asks: Mapping[str, Any] = Field(
        {}, description="vla-eval's observation_params: what a benchmark is to show"
    )

    @model_validator(mode="after")
    def _commands_something(self) -> Self:
        if not self.commanded.poses and not self.commanded.fields:
            raise ValueError(f"nothing comes from {ACTIONS!r}: what is commanded?")
        return self

    @cached_property
    def observed(self) -> RobotMapping:
        return self._part(False)

    @cached_property
    def commanded(self) -> RobotMapping:
        return self._part(True)

    @cached_property
    def _read(self) -> frozenset[str]:
        """Keys of an observation that say something to it."""
        cameras = {camera.source for camera in self.robot.cameras.values()}
        return frozenset({*cameras, *self.observed.sources, self.instruction})

    def exam(self, meanings: DataContract) -> ExamContract:
        """What a client of this mapping shows and takes. meanings: of fields that keep their
        names."""
        fields = self.robot.contract(meanings).fields
        commands = self.commanded.contract(meanings).fields
        return ExamContract(
            hz=self.robot.hz,
            cameras=dict.fromkeys(self.robot.cameras, CameraContract()),
            observes={name: one for name, one in fields.items() if name not in commands},
            commands=commands,
        )

    def observation(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """{key: value} → {images, lowdim, instruction} in canonical fields, and `unread`: the keys
        that this mapping has no use for, to name them where something is missing."""
        images = {}
        for name, camera in self.robot.cameras.items():
            if camera.source in raw:
                images[name] = _shown(raw[camera.source], camera)
        rows = {key: _row(key, raw[key]) for key in self.observed.sources if key in raw}
        known = self._known(rows)
        lowdim = {name: values[0] for name, values in mapped_fields(rows, known).items()}
        unread = [key for key in raw if key not in self._read]
        text = _text(raw, self.instruction)
        return {"images": images, "lowdim": lowdim, "instruction": text, "unread": unread}

    def actions(
        self, targets: Mapping[str, np.ndarray], measured: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        """{field: [K, D]} absolute → float32 [K, A]. measured: of the observation."""
        found = raw_fields(targets, measured, self.commanded, self.tracking)[ACTIONS]
        return found.astype(np.float32)

    def targets(
        self, actions: np.ndarray, measured: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """The way back: [K, A] of somebody else's policy → absolute targets {field: [K, D]}."""
        robot = {name: pose.delta.of for name, pose in self.commanded.poses.items() if pose.delta}
        where = dict(measured)
        steps = []
        for row in np.asarray(actions, np.float64):
            raw = {ACTIONS: row[None]}
            raw |= {key: np.asarray(value)[None] for key, value in where.items()}
            found = mapped_fields(raw, self._with_origin(robot))
            step = {name: found[name][0] for name in self._command_names()}
            steps.append(step)
            where |= self._tracked(step, where, robot)
        return {name: np.stack([step[name] for step in steps]) for name in steps[0]}

    def raw_observation(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        """The inverse of `observation`: what a client of this mapping sends."""
        lowdim = {k: np.asarray(v)[None] for k, v in observation["lowdim"].items()}
        found: dict[str, Any] = {
            key: values[0].astype(np.float32)
            for key, values in raw_fields(lowdim, observation["lowdim"], self.observed).items()
        }
        for key, pairs in self.mirrored.items():
            for dimension, of in pairs.items():
                width = max(len(found[key]), dimension + 1)
                found[key] = np.pad(found[key], (0, width - len(found[key])))
                found[key][dimension] = -found[key][of]
        for name, camera in self.robot.cameras.items():
            picture = observation["images"][name]
            if camera.rotate:
                picture, _ = rotate(picture, 360 - camera.rotate)
            found[camera.source] = picture[..., ::-1] if camera.bgr else picture
        return found | {self.instruction: observation["instruction"]}

    def _part(self, commanded: bool) -> RobotMapping:
        poses = {
            name: pose
            for name, pose in self.robot.poses.items()
            if (pose.xyz.source == ACTIONS) is commanded
        }
        fields = {
            name: value
            for name, value in self.robot.fields.items()
            if (value.source == ACTIONS) is commanded
        }
        cameras = {} if commanded else self.robot.cameras
        update = {"poses": poses, "fields": fields, "cameras": cameras}
        return self.robot.model_copy(update=update)

    def _known(self, rows: Mapping[str, Any]) -> RobotMapping:
        """Of what is observed, what this observation has."""
        poses = {}
        for name, pose in self.observed.poses.items():
            missing = {pose.xyz.source, pose.rotation.source} - rows.keys()
            if not missing:
                poses[name] = pose
            elif len({pose.xyz.source, pose.rotation.source}) > len(missing):
                key = missing.pop()
                raise FoundryError(f"{key!r} is missing, the other half of {name!r} is there")
        fields = {n: one for n, one in self.observed.fields.items() if one.source in rows}
        return self.observed.model_copy(update={"poses": poses, "fields": fields})

    def _command_names(self) -> list[str]:
        poses = [f"{name}__{half}" for name in self.commanded.poses for half in ("xyz", "rot_6d")]
        return [*poses, *self.commanded.fields]

    def _with_origin(self, origins: Mapping[str, str]) -> RobotMapping:
        """The commanded part, and the poses that its deltas start from under their own names."""
        own = {of: _own_pose(of) for of in origins.values()}
        return self.commanded.model_copy(update={"poses": {**own, **self.commanded.poses}})

    def _tracked(
        self,
        step: Mapping[str, np.ndarray],
        where: Mapping[str, np.ndarray],
        origins: Mapping[str, str],
    ) -> dict[str, np.ndarray]:
        """Where the robot is likely to be after a step."""
        found: dict[str, np.ndarray] = {}
        for name, of in origins.items():
            here, target = (
                (one[f"{pose}__xyz"], to_matrix(one[f"{pose}__rot_6d"], "rot6d_rows"))
                for one, pose in ((where, of), (step, name))
            )
            xyz, rotation = toward(here, target, self.tracking)
            found |= {f"{of}__xyz": xyz, f"{of}__rot_6d": encode_rot6d(rotation)}
        return found


def plain(
    contract: PolicyContract, *, images: str, fields: str, instruction: str
) -> ServingMapping:
    """Every field and camera by its own name, after these prefixes; actions are the commanded
    fields one after another, in the contract's order."""
    observed, seen = _own(contract.observes, fields)
    commanded, told = _laid_out(*_own(contract.commands, ""), _places(contract.commands))
    poses, values = {**observed, **commanded}, {**seen, **told}
    cameras = {name: CameraMapping(source=f"{images}{name}") for name in contract.cameras}
    robot = RobotMapping.model_construct(cameras=cameras, poses=poses, fields=values)
    return ServingMapping.model_construct(instruction=instruction, robot=robot)


def served_as(
    contract: PolicyContract, name: str, protocol: str, **keys: str
) -> tuple[ServingMapping, Adapter]:
    """The mapping of this name, or the plain one of these prefixes, and what it takes to serve the
    policy by it. FoundryError names what the two mean differently."""
    if not name:
        return plain(contract, **keys), Adapter(contract, own_exam(contract), protocol)
    mapping = load_serving_mapping(name, protocol)
    exam = mapping.exam(DataContract(fields=contract.fields))
    return mapping, Adapter(contract, exam, f"the mapping {name!r} of {protocol}")


def load_serving_mapping(name: str, protocol: str) -> ServingMapping:
    """The mapping of one protocol (openpi, vla_eval) from a ready document by name, or from a YAML
    file: a mapping protocol → ServingMapping."""
    path = Path(name).expanduser()
    ready = sorted(file.stem for file in _FOLDER.glob("*.yaml"))
    if path.suffix not in (".yaml", ".yml"):
        if name not in ready:
            raise FoundryError(f"there is no serving mapping {name!r}", nearest(name, ready))
        path = _FOLDER / f"{name}.yaml"
    elif not path.is_file():
        raise FoundryError(f"there is no file {name!r}", f"ready mappings: {', '.join(ready)}")
    document = load_document(path)
    if protocol not in document:
        raise FoundryError(
            f"the serving mapping {name!r} says nothing of {protocol}",
            f"it has {', '.join(sorted(document))}",
        )
    found: ServingMapping = validate(ServingMapping, document[protocol], f"{path.stem}.{protocol}")
    return found


def _own(
    names: Mapping[str, FieldContract], prefix: str
) -> tuple[dict[str, PoseMapping], dict[str, ValueMapping]]:
    """Fields by their own names: poses where both halves are there, and the others."""
    poses, values = {}, {}
    for name, one in names.items():
        pose = name.removesuffix("__xyz").removesuffix("__rot_6d")
        if pose != name and {f"{pose}__xyz", f"{pose}__rot_6d"} <= names.keys():
            poses[pose] = _own_pose(pose, prefix)
        else:
            # A gripper that keeps its own ends is no ValueMapping that is written in a file.
            values[name] = ValueMapping.model_construct(
                source=f"{prefix}{name}", quantity=one.quantity
            )
    return poses, values


def _own_pose(pose: str, prefix: str = "") -> PoseMapping:
    xyz, rotation = (f"{prefix}{pose}__{half}" for half in ("xyz", "rot_6d"))
    return PoseMapping(
        xyz=PositionPart(source=xyz), rotation=RotationPart(source=rotation, form="rot6d_rows")
    )


def _laid_out(
    poses: Mapping[str, PoseMapping],
    values: Mapping[str, ValueMapping],
    places: Mapping[str, tuple[int, int] | None],
) -> tuple[dict[str, PoseMapping], dict[str, ValueMapping]]:
    """The same, as dimensions of one action."""

    def placed(part: AnyPart, name: str) -> AnyPart:
        return part.model_copy(update={"source": ACTIONS, "dims": places[name]})

    turned = {
        name: pose.model_copy(
            update={
                "xyz": placed(pose.xyz, f"{name}__xyz"),
                "rotation": placed(pose.rotation, f"{name}__rot_6d"),
            }
        )
        for name, pose in poses.items()
    }
    told = {name: placed(values[name], name) for name in places if name in values}
    return turned, told


def _places(commands: Mapping[str, FieldContract]) -> dict[str, tuple[int, int] | None]:
    """{field: (first, end)} of an action: one after another in the order of `commands`. Fields of
    unknown size, which no trained policy has, follow the others, without dimensions."""
    at = 0
    places: dict[str, tuple[int, int] | None] = {}
    for name, one in sorted(commands.items(), key=lambda item: not item[1].dims):
        places[name] = (at, at + one.dims) if one.dims else None
        at += one.dims
    return places


def _shown(picture: Any, camera: CameraMapping) -> Any:
    """The picture as the policy's camera delivers it; what is no picture is passed on, to be
    refused by name."""
    if not isinstance(picture, np.ndarray) or picture.ndim != 3:
        return picture
    if camera.bgr:
        picture = picture[..., ::-1]
    return rotate(picture, camera.rotate)[0] if camera.rotate else picture


def _row(key: str, value: Any) -> np.ndarray:
    """One observation's numbers as [1, D]."""
    try:
        values = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        raise FoundryError(f"{key!r} is {type(value).__name__}, not numbers") from None
    if values.size > 10_000:
        raise FoundryError(f"{key!r} has {values.size} numbers", "a robot's state has fewer")
    return values.reshape(1, -1)


def _text(raw: Mapping[str, Any], key: str) -> str:
    value = raw.get(key, "")
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if not isinstance(value, str):
        raise FoundryError(f"the instruction {key!r} is {type(value).__name__}, not text")
    return value
