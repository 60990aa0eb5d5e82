"""A mapping tried on one episode: what comes out of it, or what does not fit, before anything is
converted."""

from collections.abc import Mapping
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from foundry_core.data.convert.doubts import watched
from foundry_core.data.inspection.dimensions import RawField, field_table, spanned
from foundry_core.data.inspection.raw import picture, readable
from foundry_core.data.mapping.apply import mapped
from foundry_core.data.mapping.config import RobotMapping, relative_poses
from foundry_core.data.mapping.fit import check_fit
from foundry_core.data.robot.episodes import Episode, check_episode
from foundry_core.data.robot.poses import check_rotations
from foundry_core.data.sources.base import Held, RobotFormat
from foundry_core.errors import FoundryError


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One episode of a source as a mapping makes it. cameras, depth: name → (height, width).
    fields: in the units that are stored. meanings: field → what it is, in words. doubts: what may
    be wrong with the numbers, a sentence each."""

    mapping: str
    episode: str
    steps: int
    hz: float
    instructions: tuple[str, ...]
    cameras: Mapping[str, tuple[int, int]]
    depth: Mapping[str, tuple[int, int]]
    fields: Mapping[str, RawField]
    meanings: Mapping[str, str]
    doubts: tuple[str, ...] = ()


def tried(source: RobotFormat, mapping: RobotMapping, path: str, called: str) -> Trial:
    """The first episode that can be read, mapped. called: what the mapping is, a name or a file,
    which a FoundryError names where it does not fit."""
    held = source.holds()
    try:
        if held is not None:
            check_fit(mapping, held)
        contract = mapping.contract(source.contract())
    except FoundryError as error:
        raise _misfit(called, error) from error
    (raw,) = readable(source, path, 1).episodes
    try:
        made = mapped(raw, mapping)
        check_episode(made, tuple(contract.cameras), tuple(contract.fields))
        check_rotations(made.lowdim, relative_poses(contract.fields))
        cameras = {name: picture(made, name, 0).shape[:2] for name in made.images}
        depth = {name: deep[0].shape[:2] for name, deep in made.depth.items()}
    except FoundryError as error:
        raise _misfit(called, error) from error
    return Trial(
        mapping=called,
        episode=made.id,
        steps=made.length,
        hz=made.hz,
        instructions=tuple(text for texts in made.instructions.values() for text in texts),
        cameras=cameras,
        depth=depth,
        fields=_fields(made, mapping, held),
        meanings={name: contract.fields[name].text() for name in made.lowdim},
        doubts=tuple(watched(raw, made, mapping, contract.fields).doubts()),
    )


def _misfit(called: str, error: FoundryError) -> FoundryError:
    return FoundryError(f"{called}: {error.message}", error.hint or "correct the mapping")


def _fields(made: Episode, mapping: RobotMapping, held: Held | None) -> dict[str, RawField]:
    """With the names that the source has for the dimensions of what a field is cut from."""
    names: dict[str, tuple[str, ...]] = {f"{pose}__xyz": ("x", "y", "z") for pose in mapping.poses}
    for name, part in mapping.fields.items() if held else ():
        assert held is not None
        first, end = part.dims or (0, held.dims[part.source])
        names[name] = held.names.get(part.source, ())[first:end]
    return {name: spanned(name, [one], names.get(name, ())) for name, one in made.lowdim.items()}


def render_trial(found: Trial) -> RenderableType:
    """Tables of what the mapping makes."""
    head = Table(
        title=f"{found.mapping} fits" + (", with doubts (below)" if found.doubts else ""),
        title_justify="left",
        show_header=False,
    )
    head.add_row("episode", escape(f"{found.episode}, {found.steps} steps"))
    head.add_row("Hz", f"{found.hz:g}")
    said = "; ".join(found.instructions[:5])
    head.add_row("instructions", escape(said) or "none: a policy trains on none without")
    for what, views in (("camera", found.cameras), ("depth", found.depth)):
        for name, (height, width) in views.items():
            head.add_row(escape(f"{what} {name}"), f"{height} x {width}")
    doubts = [Text(f"doubt: {one}", style="yellow") for one in found.doubts]
    return Group(head, field_table(found.fields, "what it makes", found.meanings), *doubts)
