"""Products in 8-bit floats: by torchao's emulation, since no CPU has them."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
from model_zoo import build, language_config, vla_config
from safetensors.torch import load_file
from test_objectives import KEY, text_batch

from foundry_core.errors import FoundryError
from foundry_core.models.config import LoRAConfig
from foundry_core.models.io import load_model
from foundry_core.pipeline.registry import stage_kind
from foundry_core.training import fp8
from foundry_core.training.config import Fp8Config, TrainingConfig, TrainResources
from foundry_core.training.fp8 import check_fp8, compute_in_fp8
from foundry_core.training.objectives import TextLoss

sys.path.append(str(Path(__file__).parents[1] / "tasks"))
from training_stages import LANGUAGE, TEXT, Bench, curve

TRYING = Fp8Config(emulated=True, least=16)
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
TRAINING = {
    "steps": 24,
    "precision": "bf16",
    "schedule": {"warmup": 2},
    "optimizer": {"lr": 1e-2},
}
FP8 = {**TRAINING, "fp8": {"emulated": True, "least": 16}}

needs_torchao = pytest.mark.skipif(
    importlib.util.find_spec("torchao") is None, reason="needs the extra fp8 (torchao)"
)


@pytest.fixture(scope="module")
def bench(tmp_path_factory) -> Bench:
    torch.set_num_threads(1)
    return Bench(tmp_path_factory.mktemp("stages"))


def llm(bench, name, training, **resources):
    recipe = {"model": LANGUAGE, "data": {"text": TEXT}, "training": training}
    inputs = {"text": "text", "tokenizer": "tokenizer"}
    resources = {"log_every": 4, **resources}
    return bench.stage(name, "train_llm", recipe, inputs, resources=resources)


def converted(model) -> set[str]:
    return {name for name, one in model.named_modules() if type(one).__name__ == "Float8Linear"}


@needs_torchao
def test_linears_of_blocks_that_are_large_and_trained():
    config = vla_config(lora=None)
    model = build(config)
    count = compute_in_fp8(model, TRYING, CPU)
    found = converted(model)
    assert len(found) == count
    assert all("blocks" in name for name in found), found
    assert {name for name in found if name.startswith("backbone.language.blocks.0.")} == {
        f"backbone.language.blocks.0.{name}"
        for name in ("attention.qkv", "attention.out", "ffn.gate_up", "ffn.down")
    }
    assert any(name.startswith("head.") for name in found)
    names = {name for name, _ in build(config).named_parameters()}
    assert {name for name, _ in model.named_parameters()} == names
    adapted = build(vla_config(lora=LoRAConfig(rank=2)))
    compute_in_fp8(adapted, TRYING, CPU)
    assert all(name.startswith("head.") for name in converted(adapted))
    with pytest.raises(FoundryError, match="has sides of 1024 or more, both multiples of 16"):
        compute_in_fp8(build(language_config()), Fp8Config(emulated=True), CPU)
    odd = build(language_config(ffn_dim=72))
    compute_in_fp8(odd, TRYING, CPU)
    assert {name.rpartition(".")[2] for name in converted(odd)} == {"qkv", "out", "gate_up"}


@needs_torchao
@pytest.mark.parametrize("scaling", ["tensor", "row"])
def test_a_product_is_that_of_rounded_operands(scaling):
    """Of torch's own float8: scaled to its largest number, rounded, multiplied."""
    model = build(language_config())
    compute_in_fp8(model, Fp8Config(emulated=True, least=16, scaling=scaling), CPU)
    layer = model.blocks[0].attention.qkv
    x = torch.randn(8, layer.in_features, generator=torch.Generator().manual_seed(0))

    def rounded(value, dim):
        most = value.abs().amax(dim, keepdim=True) if scaling == "row" else value.abs().max()
        scale = 448.0 / most
        if scaling == "row":
            scale = torch.exp2(torch.floor(torch.log2(scale)))
        return (value * scale).to(torch.float8_e4m3fn).float() / scale

    expected = rounded(x, 1) @ rounded(layer.weight.detach(), 1).t()
    torch.testing.assert_close(layer(x).detach(), expected, rtol=1e-4, atol=1e-5)
    assert (expected - x @ layer.weight.t()).abs().max() > 1e-3


@needs_torchao
def test_a_training_learns_as_in_bf16(bench):
    plain, _ = llm(bench, "bf16", TRAINING)
    folder, _ = llm(bench, "fp8", FP8)
    losses, eights = ([row["loss"] for row in curve(one)] for one in (plain, folder))
    assert eights[-1] < 0.8 * eights[0]
    assert eights[-1] == pytest.approx(losses[-1], rel=0.05)
    assert eights != losses
    written, usual = (load_file(one / "model.safetensors") for one in (folder, plain))
    assert set(written) == set(usual)
    assert all(value.dtype == torch.float32 for value in written.values())
    model, _ = load_model(folder)
    assert not converted(model)


@needs_torchao
def test_it_resumes_to_the_bit(bench):
    from foundry_core.data.loading.loader import Loader

    short_run = {**FP8, "steps": 6}
    straight, _ = llm(bench, "straight", short_run)
    original = Loader.batches

    def short(self, first_step=0, rank=0, world=1):
        for step, batch in enumerate(original(self, first_step, rank, world), start=first_step):
            if step == 4:
                raise KeyboardInterrupt
            yield batch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loader, "batches", short)
        with pytest.raises(KeyboardInterrupt):
            llm(bench, "cut", short_run, checkpoint_every_steps=2)
    folder, metrics = llm(bench, "cut", short_run, checkpoint_every_steps=2)
    assert metrics["resumed_from_step"] == 4
    first, second = ((one / "model.safetensors").read_bytes() for one in (straight, folder))
    assert first == second


@needs_torchao
@pytest.mark.slow("compiles")
def test_a_step_stays_one_graph():
    """Nothing of torchao's breaks what is compiled."""
    model = build(language_config())
    compute_in_fp8(model, TRYING, CPU)
    objective = TextLoss()
    prepared = objective.prepare(text_batch())

    def step():
        with torch.autocast("cpu", torch.bfloat16):
            return objective(model, prepared, KEY)["loss"]

    torch._dynamo.reset()
    found = torch._dynamo.explain(step)()
    assert (found.graph_count, found.graph_break_count) == (1, 0), found.break_reasons


def test_without_the_extra(monkeypatch, bench):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        fp8.importlib.util, "find_spec", lambda name: None if name == "torchao" else real(name)
    )
    with pytest.raises(FoundryError, match="torchao, which is not installed") as caught:
        llm(bench, "without", FP8)
    assert "foundry-robotics[fp8]" in caught.value.hint
    check_fp8(None, CPU)  # who does not ask for it needs nothing


@pytest.mark.parametrize(
    ("capability", "scaling", "told"),
    [
        ((8, 0), "tensor", r"needs compute capability 8.9 \(Ada or later\); A card has 8.0"),
        ((8, 9), "tensor", None),
        ((8, 9), "row", r"needs compute capability 9.0 \(Hopper or later\); A card has 8.9"),
        ((9, 0), "row", None),
    ],
)
def test_cards_without_it(monkeypatch, capability, scaling, told):
    monkeypatch.setattr(fp8.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A card")
    config = Fp8Config(scaling=scaling)
    if told is None:
        return check_fp8(config, CUDA)
    with pytest.raises(FoundryError, match=told) as caught:
        check_fp8(config, CUDA)
    assert "leave training.fp8 out" in caught.value.hint


def test_a_cpu_has_none(monkeypatch):
    monkeypatch.setattr(fp8.importlib.util, "find_spec", lambda name: object())
    with pytest.raises(FoundryError, match="this process trains on cpu"):
        check_fp8(Fp8Config(), CPU)


def test_a_plan_refuses_it_without_gpus():
    kind = stage_kind("train_llm")
    training = {"steps": 1, "precision": "bf16", "fp8": {}}
    recipe = kind.Recipe.model_validate({"training": training})
    with pytest.raises(FoundryError, match=r"resources.gpus is 0"):
        kind.check_resources(recipe, TrainResources())
    kind.check_resources(recipe, TrainResources(gpus=1))
    assert any("without compile" in note for note in kind.notes(recipe, {}))
    compiled = {**training, "compile": "blocks"}
    assert not kind.notes(kind.Recipe.model_validate({"training": compiled}), {})
    tried = {**training, "fp8": {"emulated": True}}
    kind.check_resources(kind.Recipe.model_validate({"training": tried}), TrainResources())
    with pytest.raises(ValueError, match="set precision to bf16 or bf16_weights"):
        TrainingConfig(steps=1, fp8=Fp8Config())


def test_it_belongs_to_the_identity_and_no_old_key_changes():
    from foundry_core.config.canonical import canonical

    plain = canonical(TrainingConfig(steps=1, precision="bf16"))
    assert "fp8" not in json.dumps(plain)
    with_it = canonical(TrainingConfig(steps=1, precision="bf16", fp8=Fp8Config()))
    assert with_it["fp8"] == {"emulated": False, "least": 1024, "scaling": "tensor"}
