"""Checkpoints in an object store: continued on a host that has seen nothing of them."""

import itertools
import json

import pytest
import torch
from safetensors.torch import load_file
from training_toy import toy_batches, toy_trainer, weights

from foundry_core.errors import FoundryError
from foundry_core.objects import connect
from foundry_core.training.checkpoint import CheckpointFolder, CheckpointPlace
from foundry_core.training.distributed import World
from foundry_core.training.object_place import CheckpointObjects
from foundry_core.training.resume import agreed_checkpoint
from foundry_core.training.saving import Saver
from tests.s3 import s3_server, use_s3


@pytest.fixture(scope="module")
def endpoint():
    with s3_server() as url:
        yield url


@pytest.fixture
def objects(endpoint, monkeypatch):
    return connect(use_s3(monkeypatch, endpoint)).below("work/key/checkpoints-0")


def state(step):
    return {"w": torch.full((3,), float(step))}


def save(place: CheckpointPlace, *steps: int) -> None:
    saver = Saver(place, state(0), World())
    for step in steps:
        saver.save(step, state(step), {})
    saver.finish()


def on_a_host(name, root, objects, **options):
    """A training whose checkpoints lie in the bucket, with a disk of its own."""
    place = CheckpointObjects(objects, root / name / "local")
    return toy_trainer(root / name, checkpoints=place, **options)


def first_batches(count):
    return lambda first: itertools.islice(toy_batches(first), count)


def test_another_host_continues_bit_for_bit(tmp_path, objects):
    straight = toy_trainer(tmp_path / "straight", steps=20)
    straight.train()
    every = {"resources": {"checkpoint_every_steps": 6}}
    with pytest.raises(FoundryError, match="the data ended at step 14"):
        on_a_host("first", tmp_path, objects, batches=first_batches(14), **every).train()
    other = on_a_host("other", tmp_path, objects, **every)
    assert other.train().resumed_from == 12
    assert all(torch.equal(weights(other)[n], w) for n, w in weights(straight).items())
    rows = (tmp_path / "straight" / "records" / "metrics.jsonl").read_bytes()
    assert (tmp_path / "other" / "records" / "metrics.jsonl").read_bytes() == rows


def test_two_are_kept_and_a_torn_one_falls_back(tmp_path, objects, caplog):
    place = CheckpointObjects(objects, tmp_path)
    save(place, 1, 2, 3)
    assert [n for n in objects.names() if n.endswith(".json")] == [
        "step_000000002.json",
        "step_000000003.json",
    ]
    assert len(objects.folders()) == 2
    newest = json.loads(objects.read("step_000000003.json"))
    objects.write(f"{newest['shards_at']}/shard_00000.safetensors", b"torn")
    assert agreed_checkpoint(CheckpointObjects(objects, tmp_path / "b"), World()).step == 2
    assert "step_000000003" in caplog.text


def test_the_trunk_outlives_what_comes_after_it_and_is_taken_down(tmp_path, objects):
    place = CheckpointObjects(objects, tmp_path / "local")
    saver = Saver(place, state(0), World(), trunk=2)
    for step in range(1, 7):
        saver.save(step, state(step), {"continued": None})
    saver.finish()
    assert [step for step, _ in place.known()] == [6, 5, 2]
    assert len(objects.folders()) == 3
    assert place.take(2, tmp_path / "left" / "step_000000002")
    found = CheckpointFolder(tmp_path / "left").load(2)
    assert (found.step, found.scalars) == (2, {})
    assert torch.equal(load_file(found.files[0])["w"], state(2)["w"])
    assert "shards_at" not in json.loads((tmp_path / "left/step_000000002/state.json").read_text())
    assert not place.take(3, tmp_path / "left" / "step_000000003")
    shards = json.loads(objects.read("step_000000005.json"))["shards_at"]
    objects.write(f"{shards}/shard_00000.safetensors", b"torn")
    assert not place.take(5, tmp_path / "left" / "step_000000005")


def test_another_host_leaves_the_trunk_of_the_first(tmp_path, objects):
    """Killed after the branch: the state of that step lies in the bucket alone."""
    falls = {"training": {"schedule": {"kind": "wsd", "decay_fraction": 0.5}}, "trunk": 10}
    options = {"steps": 20, "resources": {"checkpoint_every_steps": 3}, **falls}
    straight = toy_trainer(tmp_path / "straight", **options)
    straight.train()
    with pytest.raises(FoundryError, match="the data ended at step 19"):
        on_a_host("first", tmp_path, objects, batches=first_batches(19), **options).train()
    other = on_a_host("other", tmp_path, objects, **options)
    assert other.train().resumed_from == 18
    for name in ("state.json", "shard_00000.safetensors"):
        place = f"scratch/trunks/step_000000010/{name}"
        assert (tmp_path / "other" / place).read_bytes() == (
            tmp_path / "straight" / place
        ).read_bytes()


def test_which_there_are_is_one_listing_and_no_state_is_read(tmp_path, objects, monkeypatch):
    place = CheckpointObjects(objects, tmp_path)
    save(place, 1, 2)
    seen = place.known()
    monkeypatch.setattr(type(objects), "read_tagged", None)
    assert CheckpointObjects(objects, tmp_path / "other rank").known() == seen
    monkeypatch.undo()
    state = json.loads(objects.read("step_000000002.json"))
    objects.write("step_000000002.json", json.dumps({**state, "scalars": {"other": 1}}).encode())
    (newest, before), (changed, after) = seen[0], place.known()[0]
    assert newest == changed == 2 and before != after


@pytest.mark.parametrize("at", ["../other", "a/b", "", 3])
def test_a_state_that_names_shards_elsewhere_is_no_checkpoint(tmp_path, objects, at):
    place = CheckpointObjects(objects, tmp_path)
    save(place, 1)
    document = json.loads(objects.read("step_000000001.json"))
    objects.write("step_000000001.json", json.dumps({**document, "shards_at": at}).encode())
    assert agreed_checkpoint(place, World()) is None
