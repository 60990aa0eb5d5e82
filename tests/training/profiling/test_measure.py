"""A whole profile of small trainings: what it says against what is known of them."""

import functools
import json

import pytest
import torch
from model_zoo import build, robot_batch, vla_config
from test_compile import CAPTIONS, ROBOT
from test_objectives import caption_batch
from torch import nn
from training_toy import ToyModel, toy_batches, toy_trainer

from foundry_core.errors import FoundryError
from foundry_core.models import blocks
from foundry_core.training.config import TrainingConfig, TrainResources
from foundry_core.training.loop import Trainer
from foundry_core.training.profiling.measure import profile_trainer
from foundry_core.training.profiling.wanted import Wanted

QUICK = Wanted(steps=4, warmup=1)
PASSES = 1 + 4 + 2 + 1 + 1 + (1 + 3)  # warm-up, times, parts, memory, operators, torch.profiler


class Spare(ToyModel):
    """Has a layer that nobody calls, and reads a value on the host."""

    def __init__(self):
        super().__init__()
        self.spare = nn.Linear(2, 2)

    def forward(self, x):
        y = super().forward(x)
        return y if float(y.sum().detach()) > -1e9 else -y


def silent(*_, **__):
    pass


def toy(folder, wanted=QUICK, **changes):
    return profile_trainer(toy_trainer(folder, **changes), wanted, silent)


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    """A profile with its trainer."""
    folder = tmp_path_factory.mktemp("policy")
    batch = {"robot": robot_batch([4, 4]), "captions": caption_batch()}

    def batches(first):
        while True:
            yield batch

    trainer = Trainer(
        model=build(vla_config()),
        objectives={"robot": ROBOT, "captions": CAPTIONS},
        batches=batches,
        config=TrainingConfig(steps=2, precision="bf16", ema={"kind": "power"}),
        total_steps=2,
        seed=0,
        resources=TrainResources(peak_tflops=0.5),
        scratch=folder / "scratch",
        records=folder / "records",
        progress=silent,
        frozen=("backbone.vision.patchify",),
    )
    wanted = Wanted(steps=4, warmup=1, graph_breaks=True, trace=folder / "trace.json")
    return profile_trainer(trainer, wanted, silent), trainer, folder


def test_parts_and_phases_add_up_to_the_step(policy):
    found, _, _ = policy
    names = [part.name for part in found.parts]
    assert names == ["language", "vision", "projector", "head", "output", ""]
    parts = sum(part.seconds for part in found.parts)
    assert parts + sum(found.phases.values()) == pytest.approx(found.watched_seconds)
    assert set(found.phases) == {"data", "prepare", "norm", "optimizer", "average", "rest"}
    assert all(part.forward_seconds > 0 and part.backward_seconds > 0 for part in found.parts)


def test_a_policys_numbers_are_those_of_its_model(policy):
    found, trainer, _ = policy
    sizes = {part.name: part.parameters for part in found.parts}
    assert sizes["head"] == sum(p.numel() for p in trainer.model.head.parameters())
    assert sum(sizes.values()) == sum(p.numel() for p in trainer.model.parameters())
    trained = [p for p in trainer.model.parameters() if p.requires_grad]
    memory, trains = found.memory, 4 * sum(p.numel() for p in trained)
    assert sum(memory.weights.values()) == 4 * sum(sizes.values())
    assert (memory.gradients, memory.moments, memory.average) == (trains, 2 * trains, trains)
    assert found.frozen == len(list(trainer.model.backbone.vision.patchify.parameters()))
    assert found.unused == []
    assert found.host_reads == []
    assert found.setting.batch == {"robot": 2, "captions": 4}


def test_flops_and_mfu_are_the_trainings_own(policy):
    found, _, _ = policy
    assert found.arithmetic.flops == sum(part.flops for part in found.parts)
    assert found.arithmetic.rate == pytest.approx(found.arithmetic.flops / found.times.median)
    assert found.arithmetic.mfu == pytest.approx(found.arithmetic.rate / 0.5e12)
    assert found.ceiling.peaks.flops == 0.5e12
    assert 0 < found.ceiling.eager <= found.ceiling.products <= 1
    assert found.arithmetic.mfu <= found.ceiling.now <= 1


def test_operators_are_the_steps(policy):
    found, _, folder = policy
    operators = found.operators
    assert len(operators.top) == 10
    own = [row.seconds for row in operators.top]
    assert own == sorted(own, reverse=True)
    assert operators.products + operators.others + operators.outside == pytest.approx(1)
    products = {row.name for row in operators.top if row.is_product}
    assert {"aten::mm"} <= products
    trace = json.loads((folder / "trace.json").read_text())
    named = {event.get("name") for event in trace["traceEvents"]}
    assert {"aten::mm", "foundry: forward", "foundry: backward", "foundry: data"} <= named


def test_graphs_of_the_loss_and_of_a_block_of_each_part(policy):
    graphs = policy[0].graphs
    assert [found.what for found in graphs] == [
        "the whole loss",
        "vision: VisionBlock, one of 1",
        "language: Block, one of 4",
        "head: HeadBlock, one of 2",
    ]
    assert all((found.graphs, found.breaks, found.error) == (1, 0, "") for found in graphs)


def test_a_profile_is_json_and_leaves_no_file(policy):
    found, _, folder = policy
    read = json.loads(json.dumps(found.to_json()))
    assert read["times"]["median"] == found.times.median
    assert [path.name for path in folder.iterdir()] == ["trace.json"]


def test_an_unused_parameter_is_named_and_a_host_read_has_its_line(tmp_path):
    found = toy(tmp_path, model=Spare())
    assert found.unused == ["spare.weight", "spare.bias"]
    (read,) = found.host_reads
    line = Spare.forward.__code__.co_firstlineno + 2
    assert (read.what, read.count) == ("aten::_local_scalar_dense", 2)  # of two modalities
    assert read.where == f"profiling/test_measure.py:{line}"
    assert found.arithmetic.mfu is None
    # Which cannot be counted on the meta device: two layers of 6 by 6 on 12 rows, once forward and
    # twice backward.
    assert found.arithmetic.how.startswith("counted in a step")
    assert found.arithmetic.flops == 12 * (2 + 2 * 2) * 2 * 6 * 6
    assert found.graphs is None


def test_steps_are_the_trainers_own_and_the_batches_go_on(tmp_path):
    """The weights after a profile are those of a training over as many steps."""
    asked = []

    def batches(first):
        for batch in toy_batches(first):
            asked.append(first)
            yield batch

    trainer = toy_trainer(tmp_path / "a", batches=batches)
    profile_trainer(trainer, QUICK, silent)
    assert len(asked) == PASSES
    trained = toy_trainer(tmp_path / "b", steps=20)
    trained.build()
    for step, batch in zip(range(PASSES), toy_batches(0), strict=False):
        trained.step(step, batch)
    for one, other in zip(trainer.model.parameters(), trained.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_micro_batches_hold_their_part_alone(tmp_path):
    whole = toy(tmp_path).memory.activations
    half = toy(tmp_path, resources={"micro_batch": 6}).memory.activations
    assert half["model"] == whole["model"] / 2


def test_a_deliberate_break_is_counted_with_its_place(tmp_path):
    class Broken(ToyModel):
        def forward(self, x):
            y = self.layers[0](self.norm(x))
            torch._dynamo.graph_break()
            return self.layers[1](torch.tanh(y))

    wanted = Wanted(steps=1, warmup=0, graph_breaks=True)
    batches = lambda first: ({"a": batch["a"]} for batch in toy_batches(first))  # noqa: E731
    (loss,) = toy(tmp_path, wanted, model=Broken(), batches=batches).graphs
    # The model's frame, the objective's and the loss's are cut in two each.
    assert (loss.what, loss.graphs, loss.breaks) == ("the whole loss", 4, 3)
    line = Broken.forward.__code__.co_firstlineno + 2
    assert loss.reasons == (
        f"Call to `torch._dynamo.graph_break()` at profiling/test_measure.py:{line}",
    )


def test_data_that_end_are_said_so(tmp_path):
    batches = lambda first: iter([next(toy_batches(0))] * 3)  # noqa: E731
    with pytest.raises(FoundryError, match="the data ended at step 3"):
        toy(tmp_path, batches=batches)
    with pytest.raises(FoundryError, match="0 steps after 3"):
        Wanted(steps=0)


def test_a_compiled_training_is_left_compiled(tmp_path, monkeypatch):
    """Counting operators looks at the blocks as they are written."""
    compiled = functools.partial(torch.compile, backend="eager")
    monkeypatch.setattr(blocks.torch, "compile", compiled)
    trainer = toy_trainer(tmp_path, training={"compile": "blocks"})
    found = profile_trainer(trainer, QUICK, silent)
    layers = trainer.model.layers
    assert all(hasattr(layer.forward, "_torchdynamo_orig_callable") for layer in layers)
    with blocks.uncompiled(trainer.model):
        assert not any(hasattr(layer.forward, "_torchdynamo_orig_callable") for layer in layers)
    assert found.parts[0].forward_seconds > 0
    assert found.setting.compile == "blocks"
