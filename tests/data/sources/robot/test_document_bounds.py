"""YAML that lies beside recordings is read within the bounds of every other document."""

import itertools
import os
import tracemalloc

import numpy as np
import pytest

from foundry_core.data.sources.robot import ros_files
from foundry_core.data.sources.robot.spartan import Spartan
from foundry_core.data.statistics import published
from foundry_core.errors import FoundryError

# Each name stands for nine of the one before: 9 to the eighth texts in 400 bytes.
BOMB = "\n".join(
    ["a: &a [lol, lol]"]
    + [f"{n}: &{n} [{','.join([f'*{below}'] * 9)}]" for below, n in itertools.pairwise("abcdefghi")]
)


def spartan(path):
    arrays = {"robot__actual__x": np.zeros((2, 3)), "c": np.zeros((2, 2, 2, 3), np.uint8)}
    np.savez(path.parent / "observations.npz", **arrays)
    np.savez(path.parent / "actions.npz", actions=np.zeros((2, 20)))
    source = Spartan(path=str(path.parents[2]))
    return source.read_episode(source.episodes()[0])


READERS = {
    "metadata.yaml": (spartan, "camera_id_to_semantic_name: *i"),
    "bag.yaml": (ros_files.split_files, "rosbag2_bagfile_information: {relative_file_paths: *i}"),
    published.CONFIG: (lambda path: published.stated_past(path.parent), "past_lowdim_steps: *i"),
}


@pytest.fixture(params=READERS)
def document(request, tmp_path):
    folder = tmp_path / "Skill" / "episode_0" / "processed"
    folder.mkdir(parents=True)
    return folder / request.param, *READERS[request.param]


def test_a_bomb_of_aliases_is_refused_before_it_is_built(document):
    path, read, use = document
    path.write_text(f"{BOMB}\n{use}\n")
    tracemalloc.start()
    with pytest.raises(FoundryError, match="longer than 8 MiB") as raised:
        read(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "\n" not in str(raised.value)
    assert peak < 2**24


@pytest.mark.parametrize("text", ["a: [1", "a: !!python/object:os.system {}", "a: 1\na: 2", "[]"])
def test_what_is_no_document_is_one_line(document, text):
    path, read, _ = document
    path.write_text(text)
    if text == "[]" and path.name == published.CONFIG:
        assert read(path) == 0
        return
    with pytest.raises(FoundryError) as raised:
        read(path)
    assert "\n" not in str(raised.value)


def test_what_never_ends_is_not_read(document):
    path, read, _ = document
    os.mkfifo(path)
    if path.name == published.CONFIG:
        assert read(path) == 0  # as if there were none
        return
    with pytest.raises(FoundryError, match="is no file"):
        read(path)
