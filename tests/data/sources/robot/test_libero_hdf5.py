"""LIBERO's HDF5."""

import json

import h5py
import numpy as np
import pytest

from foundry_core.data.sources.robot.libero_hdf5 import LiberoHdf5
from tests.data.sources.robot.expected import expected, read_all


def recording(path, words, done=1):
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["problem_info"] = json.dumps({"language_instruction": words})
        data.attrs["macros_image_convention"] = "opengl"
        demo = data.create_group("demo_0")
        demo["actions"] = np.zeros((2, 7))
        demo["dones"] = np.array([0, done], np.uint8)
        demo["obs/agentview_rgb"] = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)


def test_values_are_those_of_the_original_reader(shared_data):
    wanted = expected(shared_data, "hdf5_libero")
    source = LiberoHdf5(path=str(wanted.folder))
    found = read_all(source)
    wanted.check(found, flipped=True)
    for episode in found:
        assert episode.hz == 20
        assert episode.success is True
        assert episode.task == "KITCHEN_SCENE3_turn_on_the_stove"
        assert episode.instructions == {"original": [wanted.document["instruction"]]}


@pytest.mark.parametrize("words", ['"open the door"', ["open ", "the door"], "open the door"])
def test_instructions_are_joined_and_lose_their_quote_marks(tmp_path, words):
    recording(tmp_path / "SCENE_open_demo.hdf5", words)
    (episode,) = read_all(LiberoHdf5(path=str(tmp_path), hz=20))
    assert episode.instructions == {"original": ["open the door"]}
    assert (episode.task, episode.success) == ("SCENE_open", True)


def test_pictures_are_turned_when_asked_for(tmp_path):
    recording(tmp_path / "a_demo.hdf5", "x", done=0)
    (stored,) = read_all(LiberoHdf5(path=str(tmp_path), hz=20))
    (turned,) = read_all(LiberoHdf5(path=str(tmp_path), hz=20, flip_pictures=True))
    pairs = zip(stored.images["agentview_rgb"], turned.images["agentview_rgb"], strict=True)
    assert all(np.array_equal(a[::-1], b) for a, b in pairs)
    assert stored.success is None
