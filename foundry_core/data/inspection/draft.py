"""The draft of a mapping: what a look into raw robot data can say of it, for a reader to edit."""

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from foundry_core.data.inspection.dimensions import RawField
from foundry_core.data.robot.transform_config import pose_prefix

# What a position's name has in place of what, in that of its rotation.
_PARTNERS = (
    ("__xyz", "__rot_6d", 6, "rot6d_rows"),
    ("pos", "quat", 4, "quaternion_xyzw"),
    ("position", "orientation", 4, "quaternion_xyzw"),
    ("pos", "rot_axis_angle", 3, "axis_angle"),
)
# In names of cameras and of depth, beside what tells one view from another.
_COMMON = {"observation", "observations", "obs", "images", "image", "rgb", "color", "depth"}
# In names of what a gripper does, which is not how far it is open.
_NO_OPENING = {
    "velocity",
    "velocities",
    "vel",
    "qvel",
    "speed",
    "effort",
    "force",
    "torque",
    "current",
}
_ENDS = "closed and open are the range that was seen; they may be the other way round"
_MOST_NAMES, _WIDTH = 64, 96


def draft_mapping(
    fields: Mapping[str, RawField],
    cameras: Sequence[str],
    hz: float,
    *,
    words: bool = True,
    depth: Sequence[str] = (),
    bookkeeping: Mapping[str, str] | None = None,
) -> str:
    """YAML of a mapping that keeps everything under canonical names: poses where a position and a
    rotation stand side by side, grippers with the ends that were seen, depth at its camera. A
    start: units, frames and senses are the reader's to say, and an instruction where the data hold
    no words. bookkeeping: field → why it is no measurement and no command; those are comments."""
    poses = dict(_poses(fields))
    used = {part["from"] for pose in poses.values() for part in pose.values()}
    deep, alone = _depth_of(cameras, depth)
    shown = {
        camera: {"from": name} | ({"depth": deep[name]} if name in deep else {})
        for camera, name in _cameras(cameras).items()
    }
    text = (
        "# A draft: say units, frames, rotation forms (x y z w is a guess) and which end of a "
        "gripper is open.\n"
    )
    if not words:
        text += (
            "# Not every episode holds words: add a line `instruction: what is done` for those "
            "that hold none; no policy trains without.\n"
        )
    text += f"hz: {float(hz)!r}\n"
    text += _yaml({"cameras": shown}) if shown else ""
    for name in alone:
        text += f"# depth {name}: name it at its camera, as in {{from: ..., depth: {name}}}\n"
    text += _yaml({"poses": poses}) if poses else ""
    rest = {name: found for name, found in fields.items() if name not in used}
    lines = [line for name in rest for line in _field(name, rest[name], bookkeeping or {})]
    if lines:
        kept = any(not line.startswith("#") for line in lines)
        text += ("fields:\n" if kept else "# fields:\n") + "".join(f"  {line}\n" for line in lines)
    return text


def _yaml(document: Mapping[str, Any]) -> str:
    return yaml.safe_dump(document, sort_keys=False, default_flow_style=None, width=10_000)


def _poses(fields: Mapping[str, RawField]) -> Iterator[tuple[str, dict[str, dict[str, str]]]]:
    for name, found in fields.items():
        if _is_pose(found):
            whole = {"from": name, "form": "pose_4x4"}
            yield pose_prefix(_target(name, "poses__")), {"xyz": whole, "rotation": dict(whole)}
        partner = _rotation_of(name, fields) if found.dims == 3 else None
        if partner is not None:
            rotation, form = partner
            target = pose_prefix(_target(name, "poses__"))
            yield target, {"xyz": {"from": name}, "rotation": {"from": rotation, "form": form}}


def _is_pose(found: RawField) -> bool:
    """Whether it is a 4x4 laid flat, by its last row."""
    last = [(one.low, one.high) for one in found.dimensions[12:]]
    return found.dims == 16 and last == [(0, 0), (0, 0), (0, 0), (1, 1)]


def _field(name: str, found: RawField, bookkeeping: Mapping[str, str]) -> Iterator[str]:
    """Its entry, behind comments of what its dimensions are called, and of which have few
    values."""
    value: dict[str, object] = {"from": name}
    gripper = _is_gripper(name, found)
    if gripper:
        value |= {"quantity": "gripper", "closed": found.low, "open": found.high}
    entry = _yaml({_target(name): value}).rstrip()
    if name in bookkeeping:
        yield f"# {entry}  # {bookkeeping[name]}"
        return
    called = [f"{n} {one.name}" for n, one in enumerate(found.dimensions) if one.name]
    more = len(called) - _MOST_NAMES
    if called:
        listed = ", ".join(called[:_MOST_NAMES]) + (f", and {more} more" if more > 0 else "")
        for line in textwrap.wrap(f"dims: {listed}", _WIDTH - 4, break_long_words=False):
            yield f"# {line}"
    for number in found.few:
        one = found.dimensions[number]
        yield (
            f"# dim {number} has {one.values} values from {one.low:g} to {one.high:g}: a gripper?"
        )
    if gripper:
        yield f"# {_ENDS}"
    yield entry


def _is_gripper(name: str, found: RawField) -> bool:
    """Whether it is one number that moves and is called a gripper's opening; canonical ones are
    left as they are."""
    parts = set(re.split(r"[^a-z0-9]+", name.lower()))
    called = "gripper" in name.lower() and not parts & _NO_OPENING
    known = name.startswith("robot__")
    return called and not known and found.dims == 1 and found.low < found.high


def _depth_of(cameras: Sequence[str], depth: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """({camera: its depth}, depth whose camera is not known): by names, or as the only ones."""
    if len(cameras) == len(depth) == 1:
        return {cameras[0]: depth[0]}, []
    views: dict[tuple[str, ...], list[str]] = {}
    for name in cameras:
        views.setdefault(_view(name), []).append(name)
    found: dict[str, str] = {}
    for name in depth:
        seen = views.get(_view(name), [])
        if _view(name) and len(seen) == 1:
            found.setdefault(seen[0], name)
    return found, [name for name in depth if name not in found.values()]


def _view(name: str) -> tuple[str, ...]:
    parts = re.split(r"[^a-z0-9]+", name.lower())
    return tuple(part for part in parts if part and part not in _COMMON)


def _cameras(names: Sequence[str]) -> dict[str, str]:
    """{name in shards: raw camera}: without LeRobot's prefix where that leaves them apart."""
    short = {_slug(name.removeprefix("observation.images.")): name for name in names}
    return short if len(short) == len(names) else {_slug(name): name for name in names}


def _target(name: str, room: str = "") -> str:
    """The canonical name of a raw field; one that is canonical keeps it."""
    if name.startswith("robot__"):
        return name
    kind = "action" if "action" in name else "actual"
    return f"robot__{kind}__{room}{_slug(name)}"


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")


def _rotation_of(name: str, fields: Mapping[str, RawField]) -> tuple[str, str] | None:
    """(field, form) of the rotation that belongs to a position."""
    for old, new, dims, form in _PARTNERS:
        partner = name.replace(old, new)
        if partner != name and partner in fields and fields[partner].dims == dims:
            return partner, form
    return None
