"""What of a training's resources rounds differently, and what its recipe cannot use."""

import pytest

from flows.runs.planning import Request, prepare
from foundry_core.errors import FoundryError
from foundry_core.training.config import TrainResources
from foundry_core.training.recipes import TrainStage


def test_whatever_adds_floats_in_another_order_is_recorded():
    alone = TrainStage.numerics(TrainResources())
    assert alone["threads"] == "1"
    for changed in ({"cpus": 2}, {"num_workers": 2}, {"micro_batch": 4}, {"gpus": 1}):
        assert TrainStage.numerics(TrainResources(**changed)) != alone, changed
    for changed in ({"strategy": "fsdp"}, {"log_every": 1}, {"loader_workers": 2}):
        assert TrainStage.numerics(TrainResources(**changed)) == alone, changed
    assert "threads" not in TrainStage.numerics(TrainResources(gpus=1))


def test_shards_divide_the_workers():
    assert TrainResources(gpus=8, strategy="hsdp", shard_size=4).workers == 8
    for wrong in ({"shard_size": 2}, {"strategy": "hsdp"}):
        with pytest.raises(ValueError, match="shard_size belongs to strategy hsdp"):
            TrainResources(gpus=4, **wrong)
    with pytest.raises(ValueError, match="shard_size 3 does not divide the 8 workers"):
        TrainResources(gpus=8, strategy="hsdp", shard_size=3)


def test_half_weights_need_whole_ones_beside_them(small_home):
    asked = (("llm.training.precision", "bf16_weights"),)
    with pytest.raises(FoundryError, match=r"'llm': .*strategy ddp does not keep"):
        prepare(Request(pipeline="demo-fast", overrides=asked))
    prepare(Request(pipeline="demo-fast", overrides=(*asked, ("llm.resources.strategy", "fsdp"))))


def test_a_batch_that_workers_cannot_share_is_refused_before_anything_runs(small_home):
    three = (("llm.resources.num_workers", 3), ("llm.data.text.batch_size", 32))
    with pytest.raises(FoundryError, match=r"'llm': text batch of 32 .* among 3 workers"):
        prepare(Request(pipeline="demo-fast", overrides=three))
