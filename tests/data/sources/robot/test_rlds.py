"""TFDS folders of episodes."""

import json
import zlib

import numpy as np
import pytest

from foundry_core.data.images import encode_depth, encode_jpeg
from foundry_core.data.robot.episodes import UnusableEpisode
from foundry_core.data.sources.robot.rlds import Rlds
from foundry_core.errors import FoundryError
from tests.data.sources.robot import tfds_files as tfds
from tests.data.sources.robot.expected import expected, read_all

STEPS = {
    "action": tfds.tensor("float64", 2),
    "is_last": tfds.tensor("bool"),
    "language_instruction": tfds.TEXT,
    "language_instruction_2": tfds.TEXT,
    "observation": tfds.features(
        state=tfds.tensor("float32", 2, 2),
        mode=tfds.tensor("int32"),
        image=tfds.image(8, 8, 3),
        depth=tfds.image(8, 8, 1, dtype="uint16"),
        cloud=tfds.tensor("float32", -1, 3),
        packed=tfds.tensor("float32", 2, encoding="zlib"),
    ),
    "contacts": tfds.sequence(tfds.tensor("float32")),
}
METADATA = {"file_path": tfds.TEXT, "natural_language_instruction": tfds.TEXT}


def jpeg(step):
    return encode_jpeg(np.full((8, 8, 3), 20 * step, np.uint8), 90)


def episode(length=3, **others):
    """The Example of an episode; others: what differs."""
    steps = range(length)
    values = {
        "steps/action": tfds.floats([[step, -0.1] for step in steps]),
        "steps/is_last": [int(step == length - 1) for step in steps],
        "steps/language_instruction": [b"open it" for _ in steps],
        "steps/language_instruction_2": [b"" if step == 0 else b"open" for step in steps],
        "steps/observation/state": tfds.floats(np.arange(length * 4)),
        "steps/observation/mode": [-step for step in steps],
        "steps/observation/image": [jpeg(step) for step in steps],
        "steps/observation/depth": [
            encode_depth(np.full((8, 8), 500 + step, np.uint16)) for step in steps
        ],
        "steps/observation/packed": [
            zlib.compress(np.float32([step, 1]).tobytes()) for step in steps
        ],
        "steps/contacts/ragged_flat_values": [1.0],
        "episode_metadata/file_path": [b"/data/failure/ep.h5"],
        "episode_metadata/natural_language_instruction": [b"from the metadata"],
    }
    return tfds.example(values | others)


def folder(tmp_path, shards=None, **kwargs):
    return tfds.write(tmp_path / "toy" / "1.0.0", STEPS, shards or {"train": [[episode()]]},
                      METADATA, **kwargs)  # fmt: skip


@pytest.mark.parametrize("name", ["rlds_oxe", "rlds_droid", "rlds_bridge"])
def test_values_are_those_of_tensorflow(shared_data, name):
    wanted = expected(shared_data, name)
    source = Rlds(path=str(wanted.folder / "tfds"), hz=5)
    found = read_all(source)
    wanted.check(found, tolerance=2.0)
    for one, facts in zip(found, wanted.document["episodes"], strict=True):
        texts = [text for text in facts["instructions"] if text]
        assert one.instructions == {"original": texts}
        assert one.task == (facts["task"] or wanted.document["name"])
        assert one.success is (True if name == "rlds_droid" else None)
    splits = wanted.document["splits"]
    for split, facts in splits.items():
        chosen = Rlds(path=source.path, hz=5, split=split).episodes()
        assert len(chosen) == facts["examples"]
        assert all(f"-{split}.tfrecord" in ref.name for ref in chosen)


def test_what_an_episode_holds(tmp_path):
    folder(tmp_path)
    (found,) = read_all(Rlds(path=str(tmp_path), hz=15))
    assert {name: (v.dtype.str, v.shape) for name, v in found.lowdim.items()} == {
        "action": ("<f8", (3, 2)),
        "is_last": ("<f8", (3, 1)),
        "observation/state": ("<f4", (3, 4)),
        "observation/mode": ("<f8", (3, 1)),
        "observation/packed": ("<f4", (3, 2)),
    }
    assert found.lowdim["action"][:, 1].tolist() == [float(np.float32(-0.1))] * 3
    assert found.lowdim["observation/mode"][:, 0].tolist() == [0, -1, -2]
    assert found.lowdim["observation/packed"][:, 0].tolist() == [0, 1, 2]
    assert list(found.images) == ["observation/image"]
    assert found.images["observation/image"][:] == [jpeg(0), jpeg(1), jpeg(2)]
    assert list(found.depth) == ["observation/depth"]
    assert found.depth["observation/depth"][2].dtype == np.float32
    assert (found.depth["observation/depth"][2] == np.float32(0.502)).all()
    assert found.instructions == {"original": ["open it", "open", "from the metadata"]}
    assert (found.hz, found.success, found.task) == (15.0, False, "open it")
    assert found.id == "toy-train-00000-of-00001_0"


def test_without_words_the_recipe_has_some(tmp_path):
    silent = {
        "steps/language_instruction": [b" "] * 3,
        "steps/language_instruction_2": [b""] * 3,
        "episode_metadata/natural_language_instruction": [],
    }
    folder(tmp_path, {"train": [[episode(**silent)]]})
    (found,) = read_all(Rlds(path=str(tmp_path), hz=15, instruction="do it"))
    assert (found.task, found.instructions) == ("do it", {"original": ["do it"]})
    (found,) = read_all(Rlds(path=str(tmp_path), hz=15))
    assert (found.task, found.instructions) == ("toy", {"original": []})


def test_order_is_that_of_the_shards(tmp_path):
    shards = {"val": [[episode(2)]], "train": [[episode(3), episode(4)], [episode(5)]]}
    folder(tmp_path, shards)
    source = Rlds(path=str(tmp_path), hz=15)
    assert [source.read_episode(ref).length for ref in source.episodes()] == [3, 4, 5, 2]
    assert [ref.name for ref in source.episodes()][:3] == [
        "toy-train.tfrecord-00000-of-00002[0]",
        "toy-train.tfrecord-00000-of-00002[1]",
        "toy-train.tfrecord-00001-of-00002[0]",
    ]
    with pytest.raises(FoundryError, match=r"no split 'trian'.*train"):
        Rlds(path=str(tmp_path), hz=15, split="trian").episodes()


def outcomes(source):
    found = []
    for ref in source.episodes():
        try:
            found.append(source.read_episode(ref).length)
        except UnusableEpisode as error:
            found.append(str(error))
    return found


def test_a_flipped_bit_costs_one_episode(tmp_path):
    path = folder(tmp_path, {"train": [[episode(3), episode(4), episode(5)]]})
    shard = path / "toy-train.tfrecord-00000-of-00001"
    data = bytearray(shard.read_bytes())
    data[len(tfds.record(episode(3))) + 40] ^= 1
    shard.write_bytes(data)
    first, second, third = outcomes(Rlds(path=str(tmp_path), hz=15))
    assert (first, third) == (3, 5)
    assert "fails its CRC" in second and shard.name in second


def test_what_a_shard_lacks_is_not_passed_over(tmp_path):
    path = folder(tmp_path, {"train": [[episode(3), episode(4)], [episode(5)]]})
    first, second = sorted(path.glob("toy-train*"))
    first.write_bytes(first.read_bytes()[: len(tfds.record(episode(3))) + 100])
    second.unlink()
    found = outcomes(Rlds(path=str(tmp_path), hz=15))
    assert found[0] == 3
    assert "cut short" in found[1]
    assert "00001-of-00002[0] is absent: there is no such shard" in found[2]
    first.write_bytes(tfds.record(episode(3)))
    found = outcomes(Rlds(path=str(tmp_path), hz=15))
    assert "[1] is absent: the shard ends before it" in found[1]
    (path / "dataset_info.json").unlink()
    assert len(outcomes(Rlds(path=str(tmp_path), hz=15))) == 2


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"steps/action": [1.0] * 5}, "action is not readable: 5 values are no whole number"),
        ({"steps/action": [b"1"] * 3}, "action is not readable: byte strings"),
        ({"steps/is_last": [0, 1]}, "'is_last' has 2 steps, 'action' has 3"),
        ({"steps/observation/image": [1.0] * 3}, "image is not readable: numbers where"),
        ({"steps/observation/image": []}, "'observation/image' has 0 steps"),
        ({"steps/language_instruction": [b"\xff"] * 3}, "language_instruction is not readable"),
        (
            {"steps/observation/packed": [zlib.compress(bytes(10**6))] * 3},
            "packed is not readable: a step of 9 bytes, not 8",
        ),
    ],
)
def test_what_is_refused(tmp_path, others, message):
    folder(tmp_path, {"train": [[episode(**others)]]})
    with pytest.raises(UnusableEpisode, match=message) as caught:
        read_all(Rlds(path=str(tmp_path), hz=15))
    assert "toy-train.tfrecord-00000-of-00001[0]" in str(caught.value)


def test_without_steps(tmp_path):
    folder(tmp_path, {"train": [[episode(0)]]})
    with pytest.raises(UnusableEpisode, match="has no steps"):
        read_all(Rlds(path=str(tmp_path), hz=15))


def test_no_example_at_all(tmp_path):
    folder(tmp_path, {"train": [[b"\xff\xff\xff"]]})
    with pytest.raises(UnusableEpisode, match="is not readable"):
        read_all(Rlds(path=str(tmp_path), hz=15))


def test_folders_that_are_none(tmp_path):
    with pytest.raises(FoundryError, match=r"holds 0 features.json"):
        Rlds(path=str(tmp_path), hz=15).episodes()
    path = folder(tmp_path)
    (path / "features.json").write_text(json.dumps(tfds.features(text=tfds.TEXT)))
    source = Rlds(path=str(tmp_path), hz=15)
    with pytest.raises(FoundryError, match="describes no RLDS episodes"):
        read_all(source)
    (path / "features.json").write_text("{")
    with pytest.raises(FoundryError, match=r"features.json is no JSON"):
        read_all(source)
    (path / "toy-train.tfrecord-00000-of-00001").unlink()
    with pytest.raises(FoundryError, match=r"no .tfrecord shards"):
        source.episodes()
