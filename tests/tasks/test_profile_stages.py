"""The training stages' own trainings, built and profiled instead of run."""

from pathlib import Path

import pytest
import torch
from training_stages import CAPTIONS, HEAD, ROBOT, Bench, stage_context

from foundry_core.pipeline.registry import stage_kind
from foundry_core.training.distributed import World
from foundry_core.training.parts import parts_of
from foundry_core.training.profiling.measure import profile_training
from foundry_core.training.profiling.wanted import Wanted
from tests.hf_checkpoints import make_vlm

QUICK = Wanted(steps=2, warmup=1)
TRAINING = {"steps": 4, "schedule": {"warmup": 1}}
DATA = {"robot": ROBOT, "captions": {**CAPTIONS, "loss_weight": 0.1}}
INPUTS = {"vlm": "vlm", "robot": "robot", "stats": "stats", "captions": "captions"}


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Bench:
    torch.set_num_threads(1)
    bench = Bench(tmp_path_factory.mktemp("stages"))
    bench.vlm(llm=None)
    return bench


def profiled(bench: Bench, folder: Path, *, vlm: str = "vlm", resources=None, **changes):
    """(profile, the training) of a train_vla stage."""
    recipe = {"model": {"head": HEAD}, "data": DATA, "training": TRAINING, **changes}
    kind = stage_kind("train_vla")
    places = bench.places({**INPUTS, "vlm": vlm})
    context = stage_context(kind, folder, folder, recipe, places, resources=resources)
    training = kind.training(context, World())
    return profile_training(training, QUICK, context.progress), training


def test_a_policy_from_its_shards(bench, tmp_path):
    found, training = profiled(bench, tmp_path)
    assert found.setting.batch == {"robot": 4, "captions": 4}
    assert {p.name for p in found.parts} >= set(parts_of(training.model))
    assert found.times.tokens_per_second > 0
    assert found.phases["data"] > 0
    assert found.unused == found.notes == []
    assert list(tmp_path.iterdir()) == []


def test_the_blind_control_uses_no_tower_for_robots(bench, tmp_path):
    """Captions reach the tower still; without them its weights get no gradient."""
    data = {"robot": ROBOT}
    found, training = profiled(bench, tmp_path, images=False, data=data)
    named = dict(training.model.named_parameters())
    dark = [n for n in named if "vision" in n or "projector" in n or n.endswith("head.weight")]
    dark = [n for n in dark if n.startswith("backbone.")]
    assert sorted(found.unused) == sorted(dark)
    vision = next(part for part in found.parts if part.name == "vision")
    assert (vision.forward_seconds, vision.flops, vision.activation_bytes) == (0, 0, 0)


def test_one_of_several_workers_gets_its_share(bench, tmp_path):
    found, _ = profiled(bench, tmp_path, resources={"num_workers": 2})
    assert found.setting.batch == {"robot": 2, "captions": 2}
    assert found.setting.workers == 2
    assert found.notes[0].startswith("one of 2 workers, without the exchange")


def test_a_training_of_no_steps_has_one_to_look_at(bench, tmp_path):
    found, _ = profiled(bench, tmp_path, training={"steps": 0})
    assert len(found.times.each) == 2


@pytest.fixture
def group():
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.slow("profiles real trainings")
def test_shards_of_one_process_in_half_precision(bench, tmp_path, group):
    """FSDP2, which gathers bf16 copies block by block."""
    training = {**TRAINING, "precision": "bf16_weights"}
    found, built = profiled(bench, tmp_path, training=training, resources={"strategy": "fsdp"})
    whole = 4 * sum(p.numel() for p in built.model.parameters())
    memory = found.memory
    assert sum(memory.weights.values()) == memory.gradients == whole
    assert memory.moments == 2 * whole
    assert all(part.forward_seconds > 0 for part in found.parts)


@pytest.mark.slow("profiles real trainings")
@pytest.mark.parametrize("family", ["qwen3_vl", "qwen2_5_vl", "smolvlm", "paligemma", "gemma3"])
def test_models_of_transformers(bench, tmp_path, family):
    """Their parts are counted in a step, as they look at values; the whole by its shapes."""
    make_vlm(tmp_path / "checkpoint", family)
    path = {"path": str(tmp_path / "checkpoint")}
    bench.stage(f"{family}_base", "import_vlm", path, {})
    found, training = profiled(bench, tmp_path / "out", vlm=f"{family}_base")
    parts = {part.name: part for part in found.parts}
    for name, modules in parts_of(training.model).items():
        if any(True for module in modules for _ in module.parameters()):
            assert parts[name].forward_seconds > 0, name
            assert parts[name].flops > 0, name
            assert parts[name].activation_bytes > 0, name
    assert found.arithmetic.how == "products of its shapes"
    # Pictures that are resized take products, too, of which the model's shapes know nothing.
    assert found.arithmetic.flops == pytest.approx(sum(p.flops for p in found.parts), rel=0.02)
    places = [read.where for read in found.host_reads]
    assert any(place.startswith("utils/import_utils.py") for place in places)  # their checks
    assert found.unused == []
