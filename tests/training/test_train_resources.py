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


def test_a_batch_that_workers_cannot_share_is_refused_before_anything_runs(small_home):
    three = (("llm.resources.num_workers", 3), ("llm.data.text.batch_size", 32))
    with pytest.raises(FoundryError, match=r"'llm': text batch of 32 .* among 3 workers"):
        prepare(Request(pipeline="demo-fast", overrides=three))
