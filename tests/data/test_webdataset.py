"""Our shards through webdataset: what its pipeline gives is what our readers give."""

import numpy as np
import pytest
import webdataset as wds

from foundry_core.data.convert.robot_shard import RobotJob, RobotPart, make_shard
from foundry_core.data.images import decode_image
from foundry_core.data.loading.text import read_row
from foundry_core.data.npy import read_npz
from foundry_core.data.shards.read import ShardSet
from foundry_core.data.shards.write import write_manifest
from foundry_core.data.sources.robot.demonstrations import Demonstrations
from foundry_core.data.webdataset import webdataset
from tests.data.convert.test_robot import settings, write_episode


def both(folder):
    """(sample of the pipeline, members as we read them) of every sample, in order."""
    shards = ShardSet(folder)
    samples = list(webdataset(folder))
    assert [sample["__key__"] for sample in samples] == [
        shards.key(number) for number in range(len(shards))
    ]
    return [(sample, shards.members(number)) for number, sample in enumerate(samples)]


def test_text(datasets):
    for sample, members in both(datasets["text"]["web"]):
        np.testing.assert_array_equal(sample["tokens.npy"], read_row(members))


def test_captions(datasets):
    for sample, members in both(datasets["captions"]["scenes"]):
        assert sample["txt"] == bytes(members["txt"]).decode()
        for name in members.keys() - {"txt", "json"}:
            np.testing.assert_array_equal(sample[name], decode_image(members[name]))


def test_episodes(datasets):
    for sample, members in both(datasets["robot"]["lever"]):
        arrays = read_npz(members["lowdim.npz"])
        assert sample["lowdim.npz"].keys() == arrays.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(sample["lowdim.npz"][name], array)
        images = [name for name in members if name.endswith(".jpg")]
        assert images
        for name in images:
            np.testing.assert_array_equal(sample[name], decode_image(members[name]))
        assert sample["metadata.json"]["length"] == len(next(iter(arrays.values())))
        assert sample["language_instructions.json"]["original"]


def test_windows(tmp_path):
    """The published layout, one sample per window."""
    write_episode(tmp_path / "demos", 0, length=6)
    (tmp_path / "demos" / "demos.json").write_text("{}")
    source = Demonstrations(path=str(tmp_path / "demos"))
    made = settings(layout="sample", image_steps=(-1, 0))
    out = tmp_path / "shards"
    out.mkdir()
    refs = tuple(source.episodes())
    make_shard(RobotJob(source=source, settings=made, refs=refs), out)
    write_manifest(out, [RobotPart.read(out).shard])
    found = both(out)
    assert len(found) == 6
    for number, (sample, members) in enumerate(found):
        assert members.keys() == sample.keys() - {"__key__", "__url__", "__local_path__"}
        assert {"scene_t-1.jpg", "scene_t0.jpg", "language_instructions.json"} <= members.keys()
        assert sample["metadata.json"]["anchor_timestep"] == number
        np.testing.assert_array_equal(sample["scene_t0.jpg"], decode_image(members["scene_t0.jpg"]))
        arrays = read_npz(members["lowdim.npz"])
        assert {"past_mask", "future_mask"} < arrays.keys()
        for name, array in arrays.items():
            np.testing.assert_array_equal(sample["lowdim.npz"][name], array)


@pytest.mark.parametrize("workers", [0, 2])
def test_it_goes_on_as_any_pipeline(datasets, workers):
    folder = datasets["text"]["web"]
    pipeline = webdataset(folder, shardshuffle=10).shuffle(8).to_tuple("tokens.npy").batched(4)
    rows = [row for (batch,) in wds.WebLoader(pipeline, batch_size=None, num_workers=workers)
            for row in np.asarray(batch).tolist()]  # fmt: skip
    shards = ShardSet(folder)
    ours = [read_row(shards.members(number)).tolist() for number in range(len(shards))]
    assert sorted(rows) == sorted(ours)
