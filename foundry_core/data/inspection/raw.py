"""`foundry data inspect` of raw data: what it is; of robot data also what the format's reader
finds, a contact sheet, and the draft of a mapping to edit. Text and captions are raw_words.py's.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from foundry_core.config.validation import validate
from foundry_core.data.convert.read import read_bounded
from foundry_core.data.images import decode_image
from foundry_core.data.inspection.dimensions import RawField, field_table, spanned
from foundry_core.data.inspection.draft import draft_mapping
from foundry_core.data.mapping.config import RobotMapping, load_mapping, mapping_names
from foundry_core.data.mapping.fit import check_fit
from foundry_core.data.robot.episodes import Episode, UnusableEpisode
from foundry_core.data.sources.base import (
    CAPTION_FORMATS,
    ROBOT_FORMATS,
    TEXT_FORMATS,
    Held,
    RawFormat,
    RobotFormat,
)
from foundry_core.data.sources.files import LOOK_ENTRIES, LOOK_LEVELS, marked_below
from foundry_core.errors import FoundryError

_LOOKED_AT = 5
_SHEET_STEPS, _SHEET_SIDE = 6, 128


@dataclass(frozen=True, kw_only=True)
class RawContents:
    """What a source holds. read: episodes that were looked into; unusable: what is wrong with
    others of the first. cameras, depth: name → (height, width). left_out: fields that the draft
    leaves out → why. ready: shipped mappings that fit."""

    format: str
    path: str
    episodes: int
    read: int
    hz: tuple[float, ...]
    lengths: tuple[int, ...]
    instructions: tuple[str, ...]
    fields: Mapping[str, RawField]
    cameras: Mapping[str, tuple[int, int]]
    depth: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    unusable: tuple[str, ...] = ()
    mapping: str = field(default="", repr=False)
    ready: tuple[str, ...] = ()


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


class Readable(NamedTuple):
    """all: episodes of the source. unusable: what is wrong with those that could not be read."""

    all: int
    episodes: tuple[Episode, ...]
    unusable: tuple[str, ...]


def readable(source: RobotFormat, path: str, most: int = _LOOKED_AT) -> Readable:
    """Up to so many of the first episodes. FoundryError where none can be read."""
    refs = source.episodes()
    episodes: list[Episode] = []
    unusable: list[str] = []
    for ref in refs[:_LOOKED_AT]:
        try:
            episodes.append(read_bounded(source, ref))
        except UnusableEpisode as error:
            unusable.append(str(error))
        if len(episodes) == most:
            break
    if not episodes:
        raise FoundryError(
            f"none of the first {len(unusable)} episodes of {path} can be read: "
            f"{(unusable or ['there is none'])[0]}",
            "mend it, or name another format with --from",
        )
    return Readable(len(refs), tuple(episodes), tuple(unusable))


def raw_contents(source: RobotFormat, path: str) -> tuple[RawContents, Episode]:
    """Of the first episodes, and the first one that could be read. FoundryError where none can."""
    looked = readable(source, path)
    episodes, unusable = looked.episodes, looked.unusable
    first, held = episodes[0], source.holds()
    fields = {
        name: spanned(
            name,
            [one.lowdim[name] for one in episodes if name in one.lowdim],
            held.names.get(name, ()) if held else (),
        )
        for name in first.lowdim
    }
    left_out = {name: why for name, why in source.bookkeeping.items() if name in fields}
    said = [text for one in episodes for texts in one.instructions.values() for text in texts]
    return (
        RawContents(
            format=source.format,
            path=path,
            episodes=looked.all,
            read=len(episodes),
            hz=tuple(sorted({float(one.hz) for one in episodes})),
            lengths=tuple(one.length for one in episodes),
            instructions=tuple(dict.fromkeys(said)),
            fields=fields,
            cameras={name: picture(first, name, 0).shape[:2] for name in first.images},
            depth={name: deep[0].shape[:2] for name, deep in first.depth.items()},
            left_out=left_out,
            unusable=unusable,
            mapping=draft_mapping(
                fields,
                tuple(first.images),
                float(first.hz),
                words=all(map(_words, episodes)),
                depth=tuple(first.depth),
                bookkeeping=left_out,
            ),
            ready=tuple(_ready(first, fields)),
        ),
        first,
    )


def _ready(episode: Episode, fields: Mapping[str, RawField]) -> Iterator[str]:
    """Names of the shipped mappings whose fields, cameras and rate are there."""
    held = Held(
        dims={name: one.dims for name, one in fields.items()},
        names={},
        cameras=tuple(episode.images),
        depth=tuple(episode.depth),
    )
    for name in mapping_names():
        mapping = validate(RobotMapping, load_mapping(name), name)
        try:
            check_fit(mapping, held)
            mapping.rate(episode.hz)
        except FoundryError:
            continue
        yield name


def _words(episode: Episode) -> bool:
    return any(episode.instructions.values())


def picture(episode: Episode, camera: str, step: int) -> np.ndarray:
    """uint8 [H, W, 3]."""
    picture = episode.images[camera][step]
    where = f"{camera} at step {step} of {episode.id}"
    return decode_image(picture, where) if isinstance(picture, bytes) else np.asarray(picture)


def contact_sheet(episode: Episode, out: Path) -> None:
    """PNG: a row per camera, steps from first to last."""
    rows = []
    for camera in episode.images:
        steps = np.linspace(0, episode.length - 1, _SHEET_STEPS).round().astype(int)
        row = [
            Image.fromarray(picture(episode, camera, int(step))).resize((_SHEET_SIDE,) * 2)
            for step in steps
        ]
        rows.append(np.concatenate([np.asarray(one) for one in row], axis=1))
    if not rows:
        raise FoundryError(f"episode {episode.id!r} has no camera", "leave out --images")
    out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows)).save(out)


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
    for name, (height, width) in found.depth.items():
        head.add_row(f"depth {name}", f"{height} x {width}")
    for name in found.ready:
        head.add_row("mapping", f"the mapping {name} that ships fits: --check {name}")
    for reason in found.unusable:
        head.add_row("[red]unusable", escape(reason))
    return Group(head, field_table(found.fields), Text("\nmapping:\n" + found.mapping))
