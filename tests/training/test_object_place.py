"""Checkpoints in an object store: continued on a host that has seen nothing of them."""

import json

import pytest
import torch
from training_toy import toy_trainer, weights

from foundry_core.errors import FoundryError
from foundry_core.objects import connect
from foundry_core.training.checkpoint import CheckpointPlace
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


def test_another_host_continues_bit_for_bit(tmp_path, objects):
    straight = toy_trainer(tmp_path / "straight", steps=20)
    straight.train()
    every = {"resources": {"checkpoint_every_steps": 6}}
    with pytest.raises(FoundryError, match="the data ended at step 14"):
        from training_toy import toy_batches

        toy_trainer(
            tmp_path / "first",
            batches=lambda first: (b for b, _ in zip(toy_batches(first), range(14), strict=False)),
            checkpoints=CheckpointObjects(objects, tmp_path / "first" / "local"),
            **every,
        ).train()
    other = toy_trainer(
        tmp_path / "other",
        checkpoints=CheckpointObjects(objects, tmp_path / "other" / "local"),
        **every,
    )
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


@pytest.mark.parametrize("at", ["../other", "a/b", "", 3])
def test_a_state_that_names_shards_elsewhere_is_no_checkpoint(tmp_path, objects, at):
    place = CheckpointObjects(objects, tmp_path)
    save(place, 1)
    document = json.loads(objects.read("step_000000001.json"))
    objects.write("step_000000001.json", json.dumps({**document, "shards_at": at}).encode())
    assert agreed_checkpoint(place, World()) is None
