"""`foundry data inspect` of raw data: what it is; of robot data also what the format's reader
finds, a contact sheet, and the draft of a mapping to edit. Text and captions are raw_words.py's.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml
from PIL import Image
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from foundry_core.data.convert.read import read_bounded
from foundry_core.data.images import decode_image
from foundry_core.data.robot.episodes import Episode, UnusableEpisode
from foundry_core.data.robot.transform_config import pose_prefix
from foundry_core.data.sources.base import (
    CAPTION_FORMATS,
    ROBOT_FORMATS,
    TEXT_FORMATS,
    RawFormat,
    RobotFormat,
)
from foundry_core.data.sources.files import LOOK_ENTRIES, LOOK_LEVELS, marked_below
from foundry_core.errors import FoundryError

_LOOKED_AT = 5
# What a position's name has in place of what, in that of its rotation.
_PARTNERS = (
    ("__xyz", "__rot_6d", 6, "rot6d_rows"),
    ("pos", "quat", 4, "quaternion_xyzw"),
    ("position", "orientation", 4, "quaternion_xyzw"),
    ("pos", "rot_axis_angle", 3, "axis_angle"),
)
_SHEET_STEPS, _SHEET_SIDE = 6, 128


@dataclass(frozen=True, kw_only=True)
class RawField:
    """dims per step; low, high: over the episodes that were read. values: how many different
    ones, at most 10."""

    dims: int
    low: float
    high: float
    values: int


@dataclass(frozen=True, kw_only=True)
class RawContents:
    """What a source holds. read: episodes that were looked into; unusable: what is wrong with
    others of the first. cameras: name → (height, width)."""

    format: str
    path: str
    episodes: int
    read: int
    hz: tuple[float, ...]
    lengths: tuple[int, ...]
    instructions: tuple[str, ...]
    fields: Mapping[str, RawField]
    cameras: Mapping[str, tuple[int, int]]
    unusable: tuple[str, ...] = ()
    mapping: str = field(default="", repr=False)


def detect(path: Path) -> type[RawFormat]:
    """The format of a file or folder: of robot data, else of captioned images, else of text, since
    each may hold files of the next. FoundryError where none or several look like it, where it lies
    above or within a data set of robots, and where something of one is missing."""
    if not path.exists():
        raise FoundryError(f"{path} does not exist", "check the path")
    known: list[str] = []
    for registry in (ROBOT_FORMATS, CAPTION_FORMATS, TEXT_FORMATS):
        kinds = {name: registry.get(name) for name in registry.names()}
        found = [name for name, kind in kinds.items() if kind.matches(path)]
        if len(found) == 1:
            return kinds[found[0]]
        if found:
            raise FoundryError(f"{path} looks like {' and '.join(found)}", "name one with --from")
        if registry is ROBOT_FORMATS:
            _refuse_parts(path, kinds)
        known += kinds
    hint = f"name one with --from: {', '.join(sorted(known))}"
    if path.is_dir():
        hint += (
            f", or a folder further down: a look goes {LOOK_LEVELS} folders deep and to "
            f"{LOOK_ENTRIES:,} names at most"
        )
    raise FoundryError(f"{path} is of no format that is known", hint)


def _refuse_parts(path: Path, kinds: Mapping[str, type[RawFormat]]) -> None:
    """FoundryError where a data set lies below or around a folder, or the folder is one that lacks
    something: its tables would else be taken for texts."""
    for name, kind in kinds.items():
        if lacking := kind.lacks(path):
            raise FoundryError(
                f"{path} looks like {name} and holds no {lacking}",
                "fetch the whole data set; or name another format with --from",
            )
        if not kind.mark:
            continue
        around = [folder for folder in path.absolute().parents[:3] if kind.matches(folder)]
        if around:
            raise FoundryError(
                f"{path} is a part of the {name} data set {around[0]}", "name that folder"
            )
        below = marked_below(path, kind.mark) if path.is_dir() else None
        if below is not None:
            raise FoundryError(
                f"{path} is no data set itself: a {name} data set lies in {below}",
                "name that folder; or name the format of this one with --from",
            )


def raw_contents(source: RobotFormat, path: str) -> tuple[RawContents, Episode]:
    """Of the first episodes, and the first one that could be read. FoundryError where none can."""
    refs = source.episodes()
    episodes: list[Episode] = []
    unusable = []
    for ref in refs[:_LOOKED_AT]:
        try:
            episodes.append(read_bounded(source, ref))
        except UnusableEpisode as error:
            unusable.append(str(error))
    if not episodes:
        raise FoundryError(
            f"none of the first {len(unusable)} episodes of {path} can be read: {unusable[0]}",
            "mend it, or name another format with --from",
        )
    fields = {name: _field(name, episodes) for name in episodes[0].lowdim}
    first = episodes[0]
    said = [text for one in episodes for texts in one.instructions.values() for text in texts]
    return (
        RawContents(
            format=source.format,
            path=path,
            episodes=len(refs),
            read=len(episodes),
            hz=tuple(sorted({float(one.hz) for one in episodes})),
            lengths=tuple(one.length for one in episodes),
            instructions=tuple(dict.fromkeys(said)),
            fields=fields,
            cameras={name: _picture(first, name, 0).shape[:2] for name in first.images},
            unusable=tuple(unusable),
            mapping=draft_mapping(
                fields, tuple(first.images), float(first.hz), words=all(map(_words, episodes))
            ),
        ),
        first,
    )


def _words(episode: Episode) -> bool:
    return any(episode.instructions.values())


def _field(name: str, episodes: Sequence[Episode]) -> RawField:
    parts = [
        np.asarray(one.lowdim[name], np.float64).reshape(one.length, -1)
        for one in episodes
        if name in one.lowdim
    ]
    widths = {part.shape[1] for part in parts}
    if len(widths) > 1:
        raise FoundryError(f"field {name!r} has {sorted(widths)} values in different episodes")
    values = np.concatenate(parts)
    known = values[np.isfinite(values)]
    return RawField(
        dims=values.shape[1],
        low=float(known.min()) if known.size else float("nan"),
        high=float(known.max()) if known.size else float("nan"),
        values=min(10, len(np.unique(known))),
    )


def _picture(episode: Episode, camera: str, step: int) -> np.ndarray:
    picture = episode.images[camera][step]
    where = f"{camera} at step {step} of {episode.id}"
    return decode_image(picture, where) if isinstance(picture, bytes) else np.asarray(picture)


def contact_sheet(episode: Episode, out: Path) -> None:
    """PNG: a row per camera, steps from first to last."""
    rows = []
    for camera in episode.images:
        steps = np.linspace(0, episode.length - 1, _SHEET_STEPS).round().astype(int)
        row = [
            Image.fromarray(_picture(episode, camera, int(step))).resize((_SHEET_SIDE,) * 2)
            for step in steps
        ]
        rows.append(np.concatenate([np.asarray(one) for one in row], axis=1))
    if not rows:
        raise FoundryError(f"episode {episode.id!r} has no camera", "leave out --images")
    out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows)).save(out)


def draft_mapping(
    fields: Mapping[str, RawField], cameras: Sequence[str], hz: float, *, words: bool = True
) -> str:
    """YAML of a mapping that keeps everything under canonical names: poses where a position and a
    rotation stand side by side, grippers with the ends that were seen. A start: units, frames and
    senses are the reader's to say, and an instruction where the data hold no words."""
    poses: dict[str, dict] = {}
    plain: dict[str, dict] = {}
    used: set[str] = set()
    for name, found in fields.items():
        partner = _rotation_of(name, fields) if found.dims == 3 else None
        if partner is not None:
            rotation, form = partner
            target = pose_prefix(_target(name, "poses__"))
            poses[target] = {"xyz": {"from": name}, "rotation": {"from": rotation, "form": form}}
            used |= {name, rotation}
    for name, found in fields.items():
        if name in used:
            continue
        value: dict[str, object] = {"from": name}
        known = name.startswith("robot__")
        if not known and "gripper" in name and found.dims == 1 and found.low < found.high:
            value |= {"quantity": "gripper", "closed": found.low, "open": found.high}
        plain[_target(name)] = value
    document = {
        "hz": hz,
        "cameras": {camera: {"from": name} for camera, name in _cameras(cameras).items()},
        "poses": poses,
        "fields": plain,
    }
    kept = {name: part for name, part in document.items() if part}
    said = (
        "# A draft: say units, frames, rotation forms (x y z w is a guess) and which end of a "
        "gripper is open.\n"
    )
    if not words:
        said += (
            "# Not every episode holds words: add a line `instruction: what is done` for those "
            "that hold none; no policy trains without.\n"
        )
    return said + yaml.safe_dump(kept, sort_keys=False)


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


def render_raw(found: RawContents) -> RenderableType:
    """Tables of the source and of its fields, and the draft."""
    head = Table(title=found.path, title_justify="left", show_header=False)
    head.add_row("format", found.format)
    head.add_row("episodes", f"{found.episodes}; looked into {found.read}")
    head.add_row("steps", ", ".join(map(str, found.lengths)))
    head.add_row("Hz", ", ".join(f"{hz:g}" for hz in found.hz))
    head.add_row("instructions", escape("; ".join(found.instructions[:5]) or "none"))
    for name, (height, width) in found.cameras.items():
        head.add_row(f"camera {name}", f"{height} x {width}")
    for reason in found.unusable:
        head.add_row("[red]unusable", escape(reason))
    table = Table("field", "dims", "low", "high", "values", title="fields", title_justify="left")
    for name, one in found.fields.items():
        values = "10 or more" if one.values == 10 else str(one.values)
        table.add_row(escape(name), str(one.dims), f"{one.low:.4g}", f"{one.high:.4g}", values)
    return Group(head, table, Text("\nmapping:\n" + found.mapping))
