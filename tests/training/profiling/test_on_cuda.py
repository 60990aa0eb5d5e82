"""A profile on a GPU: events of the device's queue, its allocator, its kernels, its waits."""

import pytest
import torch
from model_zoo import build, robot_batch, vla_config
from test_compile import CAPTIONS, ROBOT
from test_measure import Spare, silent
from test_objectives import caption_batch
from training_toy import toy_trainer

from foundry_core.training.config import TrainingConfig, TrainResources
from foundry_core.training.distributed import World
from foundry_core.training.loop import Trainer
from foundry_core.training.profiling.measure import profile_trainer
from foundry_core.training.profiling.wanted import Wanted

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
CUDA = World(device=torch.device("cuda"))


@pytest.mark.parametrize(
    ("training", "resources"),
    [
        ({"precision": "bf16"}, {}),
        ({"precision": "bf16", "compile": "blocks"}, {"recompute": ["language"]}),
        ({"precision": "bf16_weights"}, {"strategy": "fsdp"}),
    ],
)
def test_a_policy_on_a_gpu(tmp_path, training, resources):
    batch = {"robot": robot_batch([4] * 8), "captions": caption_batch()}

    def batches(first):
        while True:
            yield batch

    trainer = Trainer(
        model=build(vla_config()),
        objectives={"robot": ROBOT, "captions": CAPTIONS},
        batches=batches,
        config=TrainingConfig.model_validate({"steps": 2, "ema": {"kind": "power"}} | training),
        total_steps=2,
        seed=0,
        resources=TrainResources.model_validate({"peak_tflops": 100.0} | resources),
        scratch=tmp_path / "scratch",
        records=tmp_path / "records",
        progress=silent,
        world=CUDA,
    )
    found = profile_trainer(trainer, Wanted(trace=tmp_path / "trace.json"), silent)
    parts = sum(part.seconds for part in found.parts)
    assert parts + sum(found.phases.values()) == pytest.approx(found.watched_seconds)
    assert all(part.forward_seconds > 0 and part.backward_seconds > 0 for part in found.parts)
    memory = found.memory
    kept = sum(memory.weights.values()) + memory.moments + memory.average
    assert memory.peaks.allocated > kept + memory.gradients
    assert found.unused == found.notes == []
    operators = found.operators
    assert 0 < operators.products < 1
    assert 0 < operators.others < 1
    assert 0 < found.arithmetic.mfu < found.ceiling.now <= 1
    assert (tmp_path / "trace.json").stat().st_size > 0
    print(found.host_reads, found.operators, memory)


def test_a_wait_for_the_device_has_its_line(tmp_path):
    trainer = toy_trainer(tmp_path, model=Spare(), world=CUDA)
    found = profile_trainer(trainer, Wanted(steps=2), silent)
    line = Spare.forward.__code__.co_firstlineno + 2
    counts = {read.where: read.count for read in found.host_reads}
    assert counts[f"profiling/test_measure.py:{line}"] == 2
