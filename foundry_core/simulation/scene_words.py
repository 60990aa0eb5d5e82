"""The words of a scene's caption, written and read: where things are in pictures, and the way from
the hand to the object.

A caption ties the instruction to places in each view and to metres, which is what a policy has to
read from its pictures. Places are cells of a 48 x 48 grid over the picture (column, row; from the
left, from the top), written with two digits each. Every character counts: a digit is a token, and
what a caption costs in training is its length.

No simulator: whoever examines a model reads captions.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from foundry_core.simulation.camera import CameraPose

BINS = 48
"""Cells of the grid over a picture, each way."""
AXES = (("right", "left"), ("forward", "back"), ("up", "down"))
"""Names of the ways, the positive one first."""
OUTSIDE = "outside"
HAND, OBJECT, GOAL = "hand", "object", "goal"
_VIEW = re.compile(r"(\w+): ((?:[^:,.]+ (?:\d{4}|outside)(?:, )?)+)")
_WAY = re.compile(", ".join(rf"({plus}|{minus}) (\d+)" for plus, minus in AXES))


@dataclass(frozen=True, kw_only=True)
class View:
    """What a camera sees from. on_hand: it sees the hand always at the same place, so of its view
    only the object is named."""

    pose: CameraPose
    on_hand: bool = False


@dataclass(frozen=True, kw_only=True)
class Places:
    """What a caption tells of. thing: the object's name. hand, object, goal: [3] m in the world;
    offset: [3] m from the hand to the object, to the robot's right, forward and up."""

    thing: str
    hand: np.ndarray
    object: np.ndarray
    goal: np.ndarray
    offset: np.ndarray


def caption(instruction: str, places: Places, views: Mapping[str, View]) -> str:
    """views: what each camera sees from, in the order in which it is told."""
    thing = {places.thing: places.object}
    everything = {HAND: places.hand, **thing, GOAL: places.goal}
    told = []
    for camera, view in views.items():
        named = thing if view.on_hand else everything
        seen = ", ".join(f"{name} {place(view.pose, point)}" for name, point in named.items())
        told.append(f"{camera}: {seen}")
    return f"{instruction}. {'. '.join(told)}. {direction(places.offset)}."


def place(pose: CameraPose, point: np.ndarray) -> str:
    """ "0731" (column, row of the grid), or "outside"."""
    seen = pose.project(point)
    if seen is None:
        return OUTSIDE
    return "".join(f"{int(part * BINS):02d}" for part in seen)


def direction(offset: np.ndarray) -> str:
    """[3] m → "left 03, forward 12, down 04" as the robot sees it, rounded to centimetres."""
    parts = []
    for value, (positive, negative) in zip(offset, AXES, strict=True):
        centimetres = round(float(value) * 100)
        parts.append(f"{positive if centimetres >= 0 else negative} {abs(centimetres):02d}")
    return ", ".join(parts)


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
