"""An episode of raw fields → one of canonical fields, and commanded fields back into raw ones.

Legend: L steps, D dimensions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from foundry_core.data.contract.fields import UNITS, RotationForm
from foundry_core.data.images import decode_image
from foundry_core.data.mapping.config import (
    POSE_DIMS,
    CameraMapping,
    Part,
    PoseMapping,
    PositionPart,
    RobotMapping,
    RotationPart,
    ValueMapping,
)
from foundry_core.data.mapping.fit import check_there, entry, span
from foundry_core.data.robot.episodes import Episode, Frames, Picture, UnusableEpisode
from foundry_core.data.robot.poses import encode_rot6d
from foundry_core.data.robot.rotations import from_matrix, to_matrix
from foundry_core.errors import FoundryError

Arrays = Mapping[str, np.ndarray]
# Of a 4x4 laid flat by rows.
_POSITION = np.array([3, 7, 11])
_ROTATION = np.array([0, 1, 2, 4, 5, 6, 8, 9, 10])
_LAST_ROW = np.array([0.0, 0.0, 0.0, 1.0])


def mapped(episode: Episode, mapping: RobotMapping) -> Episode:
    """The episode in canonical fields; what the mapping does not name is left out. UnusableEpisode
    names the entry of the mapping whose raw field or camera is not there, has too few dimensions,
    or is no rotation. It does not name the episode: what all of them lack is one reason."""
    images: dict[str, Sequence[Picture] | np.ndarray] = {}
    depth: dict[str, Sequence[np.ndarray]] = {}
    weight = None
    try:
        lowdim = mapped_fields(episode.lowdim, mapping)
        for name, camera in mapping.cameras.items():
            with entry(f"cameras.{name}"):
                images[name] = _pictures(episode, camera)
                if camera.depth:
                    depth[name] = _depth(episode, camera.depth)
        if mapping.weight:
            with entry("weight"):
                weight = numbers(episode.lowdim, mapping.weight, 1)[:, 0]
        hz = mapping.rate(episode.hz) or episode.hz
    except FoundryError as error:
        raise UnusableEpisode(error.message, error.hint) from error
    success = episode.success if mapping.success is None else mapping.success
    instructions = episode.instructions
    if not any(instructions.values()) and mapping.instruction is not None:
        instructions = {"original": [mapping.instruction]}
    cameras = mapping.cameras.items()
    return replace(
        episode,
        hz=hz,
        success=success,
        instructions=instructions,
        lowdim=lowdim,
        images=images,
        depth=depth,
        weight=weight,
        intrinsics=_renamed(episode.intrinsics, {n: one.source for n, one in cameras}),
        extrinsics=_renamed(episode.extrinsics, {n: one.source for n, one in cameras}),
    )


def mapped_fields(raw: Arrays, mapping: RobotMapping) -> dict[str, np.ndarray]:
    """{raw field: [L, ...]} → {canonical field: [L, D]}. FoundryError where one is not there, has
    too few dimensions, or is no rotation."""
    poses: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    absolute = {name: pose for name, pose in mapping.poses.items() if pose.delta is None}
    for name, pose in {**absolute, **mapping.poses}.items():
        with entry(f"poses.{name}"):
            poses[name] = _pose(raw, pose, poses)
    found: dict[str, np.ndarray] = {}
    for name in mapping.poses:
        found[f"{name}__xyz"], rotation = poses[name]
        rows = encode_rot6d(rotation)
        found[f"{name}__rot_6d"] = _as_stored(raw, mapping.poses[name], rows)
    for name, value in mapping.fields.items():
        with entry(f"fields.{name}"):
            found[name] = _value(raw, value)
    return found


def _pose(
    raw: Arrays, pose: PoseMapping, known: Mapping[str, tuple[np.ndarray, np.ndarray]]
) -> tuple[np.ndarray, np.ndarray]:
    """(position [L, 3] m, R [L, 3, 3]), absolute."""
    xyz = _position(raw, pose.xyz) * UNITS[pose.xyz.unit][1]
    rotation = _rotation(raw, pose.rotation)
    if pose.delta is None:
        return xyz, rotation
    origin, axes = known[pose.delta.of]
    if pose.delta.axes == "world":
        return origin + xyz, rotation @ axes
    return origin + (axes @ xyz[..., None])[..., 0], axes @ rotation


def _as_stored(raw: Arrays, pose: PoseMapping, rows: np.ndarray) -> np.ndarray:
    """rot6d [L, 6] as it is stored, to the bit, where that is two orthonormal rows already; else
    `rows`, those of the rotation that it stands for."""
    if pose.delta is not None or pose.rotation.form != "rot6d_rows":
        return rows
    stored = numbers(raw, pose.rotation)
    return stored if np.allclose(stored, rows, rtol=0, atol=1e-6) else rows


def _position(raw: Arrays, part: PositionPart) -> np.ndarray:
    values = numbers(raw, part, part.wanted)
    return values if part.form == "xyz" else _whole_pose(values, part)[:, _POSITION]


def _rotation(raw: Arrays, part: RotationPart) -> np.ndarray:
    values = numbers(raw, part, part.wanted) * (UNITS[part.unit][1] if part.unit == "deg" else 1.0)
    form: RotationForm = "matrix" if part.form == "pose_4x4" else part.form
    if part.form == "pose_4x4":
        values = _whole_pose(values, part)[:, _ROTATION]
    try:
        return to_matrix(values, form)
    except FoundryError as error:
        raise FoundryError(f"{part.source!r}: {error.message}", error.hint) from None


def _whole_pose(values: np.ndarray, part: Part) -> np.ndarray:
    """[L, 16] of a part that is a rigid transform by rows. FoundryError where its last row shows
    that it is none, as of one by columns."""
    bad = ~np.isclose(values[:, 12:], part.scale * _LAST_ROW, atol=1e-6).all(axis=1)
    if bad.any():
        step = int(np.argmax(bad))
        raise FoundryError(
            f"{part.source!r} at step {step} ends in {(values[step, 12:] / part.scale).tolist()}, "
            "not in 0, 0, 0, 1",
            "pose_4x4 lies row by row, with the position in its last column",
        )
    return values


def _value(raw: Arrays, value: ValueMapping) -> np.ndarray:
    """[L, D] in SI units; a gripper from 0, closed, to 1, open. Infinity stays what it is, for
    `check_episode` to refuse."""
    values = numbers(raw, value)
    if value.open is not None and value.closed is not None:
        shares = (values - value.closed) / (value.open - value.closed)
        return np.where(np.isinf(shares), shares, np.clip(shares, 0.0, 1.0))
    return values * (UNITS[value.unit][1] if value.unit else 1.0)


def numbers(raw: Arrays, part: Part, wanted: int | None = None) -> np.ndarray:
    """[L, D] of a raw field, scaled: what units and a gripper's ends are said of. FoundryError
    where the field is not there, or has other dimensions."""
    check_there("field", part.source, raw)
    values = np.asarray(raw[part.source], np.float64)
    values = values.reshape(len(values), -1)
    first, end = span(part, {part.source: values.shape[1]}, wanted)
    return part.scale * values[:, first:end]


def raw_fields(
    fields: Arrays, measured: Arrays, mapping: RobotMapping, tracking: float = 1.0
) -> dict[str, np.ndarray]:
    """Inverse of `mapped_fields`: {canonical field: [L, D]} of consecutive steps → {raw field:
    [L, ...]}.

    measured: {field: [D]} at the first step, what deltas start from. tracking: the share of the way
    to its target that a robot goes in a step, to tell from where later deltas start; of one step it
    changes nothing.
    """
    parts: list[tuple[Part, np.ndarray]] = []
    for name, pose in mapping.poses.items():
        xyz, rotation = fields[f"{name}__xyz"], to_matrix(fields[f"{name}__rot_6d"], "rot6d_rows")
        if pose.delta is not None:
            origin, axes = (measured[f"{pose.delta.of}__{half}"] for half in ("xyz", "rot_6d"))
            start = origin, to_matrix(axes, "rot6d_rows")
            xyz, rotation = _deltas(xyz, rotation, start, pose.delta.axes, tracking)
        form = pose.rotation.form
        turned = from_matrix(rotation, "matrix" if form == "pose_4x4" else form)
        if pose.delta is None and pose.rotation.form == "rot6d_rows":
            turned = fields[f"{name}__rot_6d"]  # to the bit
        angle = UNITS[pose.rotation.unit][1] if pose.rotation.unit == "deg" else 1.0
        parts += [(pose.xyz, xyz / UNITS[pose.xyz.unit][1]), (pose.rotation, turned / angle)]
    for name, value in mapping.fields.items():
        parts.append((value, _raw_value(fields[name], value)))
    return _assembled(parts)


def _deltas(
    xyz: np.ndarray,
    rotation: np.ndarray,
    start: tuple[np.ndarray, np.ndarray],
    frame: str,
    tracking: float,
) -> tuple[np.ndarray, np.ndarray]:
    """(steps [L, 3] m, R [L, 3, 3]) that lead from where the robot is to its targets."""
    origin, axes = start
    steps, turns = np.empty_like(xyz), np.empty_like(rotation)
    for number, (target, turned) in enumerate(zip(xyz, rotation, strict=True)):
        way, turn = target - origin, turned @ axes.T
        steps[number] = way if frame == "world" else axes.T @ way
        turns[number] = turn if frame == "world" else axes.T @ turned
        origin, axes = toward((origin, axes), (target, turned), tracking)
    return steps, turns


def toward(
    pose: tuple[np.ndarray, np.ndarray], target: tuple[np.ndarray, np.ndarray], share: float
) -> tuple[np.ndarray, np.ndarray]:
    """The pose (position [3], R [3, 3]) that lies `share` of the way from one to another."""
    (origin, axes), (xyz, rotation) = pose, target
    angle = from_matrix(rotation @ axes.T, "axis_angle") * share
    return origin + share * (xyz - origin), to_matrix(angle, "axis_angle") @ axes


def _raw_value(values: np.ndarray, value: ValueMapping) -> np.ndarray:
    if value.open is not None and value.closed is not None:
        return value.closed + np.clip(values, 0.0, 1.0) * (value.open - value.closed)
    return values / (UNITS[value.unit][1] if value.unit else 1.0)


def _assembled(parts: Sequence[tuple[Part, np.ndarray]]) -> dict[str, np.ndarray]:
    """The raw fields that the parts are cut from; dimensions of which no part tells are 0. Parts
    without dims follow one another, but for the two of a pose_4x4, which is all of its field."""
    found: dict[str, np.ndarray] = {}
    for part, values in parts:
        before = found.get(part.source, np.zeros((len(values), 0)))
        whole = getattr(part, "form", "") == "pose_4x4"
        start = 0 if whole else before.shape[1]
        first, end = part.dims or (start, start + (POSE_DIMS if whole else values.shape[1]))
        if end > before.shape[1]:
            before = np.pad(before, ((0, 0), (0, end - before.shape[1])))
        if whole:
            places = _POSITION if isinstance(part, PositionPart) else _ROTATION
            before[:, first + places] = values / part.scale
            before[:, first + 12 : end] = _LAST_ROW
        else:
            before[:, first:end] = values / part.scale
        found[part.source] = before
    return found


def _pictures(episode: Episode, camera: CameraMapping) -> Sequence[Picture] | np.ndarray:
    check_there("camera", camera.source, episode.images)
    stored = episode.images[camera.source]
    if not camera.bgr:
        return stored

    def swapped(step: int) -> Picture:
        picture = stored[step]
        where = f"{camera.source} at step {step}"
        array = decode_image(picture, where) if isinstance(picture, bytes) else picture
        return np.ascontiguousarray(array[..., ::-1])

    return Frames(len(stored), swapped)


def _depth(episode: Episode, source: str) -> Sequence[np.ndarray]:
    check_there("depth", source, episode.depth)
    return episode.depth[source]


def _renamed(by_camera: Arrays, sources: Mapping[str, str]) -> dict[str, np.ndarray]:
    return {name: by_camera[source] for name, source in sources.items() if source in by_camera}
