"""Captions of scenes, read back as they were written."""

import numpy as np

from foundry_core.simulation.camera import CameraPose
from foundry_core.simulation.scene_words import direction, place, read_caption

CAPTION = (
    "Open the window. workspace: hand 0731, window handle 1220, goal outside. "
    "wrist: window handle 2409. left 03, forward 12, down 04."
)


def test_places_and_the_way():
    found = read_caption(CAPTION)
    assert found.places == {
        ("workspace", "hand"): (7, 31),
        ("workspace", "object"): (12, 20),
        ("workspace", "goal"): None,
        ("wrist", "object"): (24, 9),
    }
    assert found.offset == (-3, 12, -4)


def test_other_text_says_nothing():
    for text in (
        "",
        "a red cup: on a table.",
        "hand 0731",
        "workspace: hand 07, goal x. left three",
    ):
        found = read_caption(text)
        assert not found.places and found.offset is None


def test_what_is_said_twice_counts_once():
    found = read_caption("workspace: hand 0101, hand 0202. workspace: hand 0303.")
    assert found.places == {("workspace", "hand"): (1, 1)}


def test_writer_and_reader_agree():
    pose = CameraPose(position=np.zeros(3), axes=np.eye(3), fovy=90.0, upside_down=False)
    point, offset = np.array([0.25, -0.5, -1.0]), np.array([0.05, -0.2, 0.11])
    caption = f"Push. top: hand {place(pose, point)}. {direction(offset)}."
    found = read_caption(caption)
    # x = 0.5 + 0.25 / 2, y = 0.5 + 0.5 / 2, of 48 cells.
    assert found.places == {("top", "hand"): (30, 36)}
    assert found.offset == (5, -20, 11)
