"""The words of a scene's caption, read back: places in pictures, and the way from hand to object.

scenes.py writes them. No simulator: whoever examines a model reads captions.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

BINS = 48
"""Cells of the grid over a picture, each way."""
AXES = (("right", "left"), ("forward", "back"), ("up", "down"))
"""Names of the ways, the positive one first."""
OUTSIDE = "outside"
HAND, OBJECT, GOAL = "hand", "object", "goal"
_VIEW = re.compile(r"(\w+): ((?:[^:,.]+ (?:\d{4}|outside)(?:, )?)+)")
_WAY = re.compile(", ".join(rf"({plus}|{minus}) (\d+)" for plus, minus in AXES))


@dataclass(frozen=True, kw_only=True)
class SceneWords:
    """places: (camera, hand | object | goal) → cell (column, row), None for outside of the picture.
    offset: from the hand to the object, in cm to the right, forward, up; None where it is not
    said."""

    places: Mapping[tuple[str, str], tuple[int, int] | None]
    offset: tuple[int, int, int] | None


def read_caption(caption: str) -> SceneWords:
    """What a caption, or what a model wrote as one, says of places; what is said twice counts as it
    was said first. Nothing of a text that says none."""
    places: dict[tuple[str, str], tuple[int, int] | None] = {}
    for camera, named in _VIEW.findall(caption):
        for part in named.rstrip(", ").split(", "):
            name, _, cell = part.rpartition(" ")
            point = name if name in (HAND, GOAL) else OBJECT
            at = None if cell == OUTSIDE else (int(cell[:2]), int(cell[2:]))
            places.setdefault((camera, point), at)
    way = _WAY.search(caption)
    return SceneWords(places=places, offset=_signed(way) if way else None)


def _signed(way: re.Match[str]) -> tuple[int, int, int]:
    found = way.groups()
    right, forward, up = (
        int(found[2 * axis + 1]) * (1 if found[2 * axis] == AXES[axis][0] else -1)
        for axis in range(3)
    )
    return right, forward, up
