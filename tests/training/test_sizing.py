"""The arithmetic of sizes against the modules themselves: parameters on the meta device, FLOPs by
torch's counter, kept bytes by autograd's own hooks, and what one H100 once took."""

import json
import subprocess
import sys

import pytest
import torch
from model_zoo import IMAGE, OBS, count_parameters, flow_config, language_config
from model_zoo import vla_config as tiny_vla
from model_zoo import vlm_config as tiny_vlm

from flows.cli import main
from foundry_core.errors import FoundryError
from foundry_core.models import layers
from foundry_core.models.build import build_model
from foundry_core.models.config import (
    LoRAConfig,
    ProjectorConfig,
    TransformerConfig,
    ViTConfig,
    VLAConfig,
    VLMConfig,
)
from foundry_core.models.heads.diffusion import DiffusionHeadConfig
from foundry_core.models.heads.regression import RegressionHeadConfig
from foundry_core.models.presets import load_preset
from foundry_core.training.config import TrainingConfig, TrainResources
from foundry_core.training.distributed import World, gradient_sync, parallelise
from foundry_core.training.flops import counted_flops
from foundry_core.training.mixed_batch import StepKey
from foundry_core.training.objectives import ActionLoss, CaptionLoss, TextLoss, next_token_sums
from foundry_core.training.optim import freeze
from foundry_core.training.parts import recompute
from foundry_core.training.sizing.cost import StageCost, stage_cost
from foundry_core.training.sizing.models import parts_of
from foundry_core.training.sizing.workload import Rows

GIB = 2**30
PAPER = {"horizon": 16, "action_dim": 20, "proprio_dim": 20, "proprio_steps": 1}


def paper_vla() -> VLAConfig:
    vlm = load_preset("foundry_vlm").model_copy(update={"image_token_id": 50430})
    sizes = {"backbone": vlm, "obs_token_id": 50431, **PAPER}
    return load_preset("foundry_vla").model_copy(update=sizes)


def sized(config, *rows, training=None, resources=None, steps=1, frozen=()) -> StageCost:
    return stage_cost(
        parts_of(config),
        rows,
        steps,
        TrainingConfig(**{"steps": 1, **(training or {})}),
        TrainResources(**(resources or {})),
        frozen,
    )


# Longer than the sequences that a CPU's attention does without the fused kernel.
def language(**changes) -> TransformerConfig:
    return language_config(
        **({"vocab_size": 300, "dim": 64, "n_layers": 3, "ffn_dim": 160} | changes)
    )


def vlm(**changes) -> VLMConfig:
    tower = ViTConfig(image_size=252, patch_size=14, dim=48, n_layers=2, n_heads=4)
    parts = {"language": language(), "vision": tower, "projector": {"pixel_shuffle": 2}}
    return VLMConfig.model_validate(parts | {"image_token_id": IMAGE} | changes)


def vla(**changes) -> VLAConfig:
    head = flow_config(ffn_dim=64, num_noise_samples=3)
    sizes = {"horizon": 300, "action_dim": 20, "proprio_dim": 20, "proprio_steps": 1}
    parts = {"backbone": vlm(), "head": head, "tap_layers": 2, "obs_token_id": OBS}
    return VLAConfig.model_validate(parts | sizes | changes)


class PlainText:
    """Rows of one document each: a mask is what varying lengths do without on a GPU."""

    def prepare(self, batch):
        return TextLoss().prepare(batch)

    def __call__(self, model, batch, key):
        hidden = model.hidden(model.embed(batch["tokens"]))
        return next_token_sums(model, hidden, batch, 0.0)


def words(rows: int, length: int) -> torch.Tensor:
    return torch.randint(60, 300, (rows, length), generator=torch.Generator().manual_seed(0))


def text_case(config):
    rows, length = 2, 320
    segments = torch.zeros(rows, length + 1, dtype=torch.int64)
    batch = {"tokens": words(rows, length + 1), "segments": segments}
    row = Rows(modality="text", samples=rows, positions=length, targets=length)
    return PlainText(), batch, row


def images(rows: int, count: int, backbone: VLMConfig) -> tuple[torch.Tensor, torch.Tensor]:
    side, each = backbone.image_size, backbone.tokens_per_image
    pixels = torch.zeros(rows, count, 3, side, side, dtype=torch.uint8)
    return pixels, torch.full((rows, count * each), IMAGE)


def caption_case(config):
    rows, count, length = 2, 2, 200
    pixels, placeholders = images(rows, count, config)
    tokens = torch.cat((placeholders, words(rows, length)), dim=1)
    targets = torch.zeros_like(tokens, dtype=torch.bool)
    targets[:, -length:] = True
    batch = {"images": pixels, "tokens": tokens, "target_mask": targets}
    batch["token_mask"] = torch.ones_like(targets)
    objective = CaptionLoss(image_token_id=IMAGE, tokens_per_image=config.tokens_per_image)
    positions = tokens.shape[1] - 1
    row = Rows(modality="captions", samples=rows, positions=positions, targets=length, images=count)
    return objective, batch, row


def robot_case(config):
    rows, count, length = 2, 2, 200
    pixels, placeholders = images(rows, count, config.backbone)
    end = torch.full((rows, 1), OBS)
    tokens = torch.cat((placeholders, words(rows, length), end), dim=1)
    shape = (rows, config.horizon, config.action_dim)
    batch = {
        "images": pixels,
        "tokens": tokens,
        "token_mask": torch.ones_like(tokens, dtype=torch.bool),
        "proprio": torch.zeros(rows, 1, config.proprio_dim),
        "actions": torch.zeros(shape),
        "action_mask": torch.ones(shape, dtype=torch.bool),
        "draw_ids": torch.arange(rows),
    }
    each = config.backbone.tokens_per_image
    objective = ActionLoss(image_token_id=IMAGE, obs_token_id=OBS, tokens_per_image=each)
    row = Rows(modality="robot", samples=rows, positions=tokens.shape[1], images=count)
    return objective, batch, row


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """What a CPU computes with operators of its own is left to torch's, as on a GPU."""
    monkeypatch.setattr(layers, "PLAIN_ATTENTION_LIMIT", 256)
    monkeypatch.setattr(layers, "trains_on_cpu", lambda x: False)


def kept_bytes(module, run) -> int:
    """Of all that autograd saves, by storage, without the parameters."""
    own = {p.untyped_storage().data_ptr() for p in module.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        keep = run()
    assert keep.requires_grad
    return sum(kept.values())


@pytest.mark.parametrize(
    "config",
    [
        language_config(n_kv_heads=2, qk_norm=True, norm="rms", tie_embeddings=True, head_dim=12),
        language_config(n_kv_heads=2, qkv_bias=True, norm_after_embedding=True),
        tiny_vlm(projector=ProjectorConfig(kind="mlp", pixel_shuffle=2, bias=True, hidden_dim=24)),
        vlm(),
        tiny_vla(head=flow_config(time="adaln", norm="rms")),
        tiny_vla(head=flow_config(time="token")),
        tiny_vla(head=DiffusionHeadConfig(dim=32, n_layers=2, n_heads=2)),
        tiny_vla(head=RegressionHeadConfig(dim=32, n_layers=2, n_heads=2), proprio_dim=0),
        tiny_vla(lora=LoRAConfig(rank=4)),
        tiny_vla(lora=LoRAConfig(rank=4, targets=("qkv", "down"))),
        load_preset("llm_100m"),
        paper_vla(),
    ],
    ids=lambda config: config.kind,
)
def test_parameters_are_those_of_the_modules(config):
    assert sized(config).parameters == count_parameters(config)


def test_names_of_the_published_models_leave_out_their_tables():
    cost = sized(paper_vla())
    assert cost.parameters == 1_857_137_940
    assert round((cost.parameters - 2 * 50432 * 2048) / 1e9, 2) == 1.65


@pytest.mark.parametrize(
    ("case", "config"),
    [
        (text_case, language(n_kv_heads=2, qk_norm=True, norm_after_embedding=True)),
        (text_case, language(tie_embeddings=True)),
        (caption_case, vlm()),
        (robot_case, vla()),
        (robot_case, vla(head=flow_config(time="adaln", ffn_dim=64, num_noise_samples=2))),
        (robot_case, vla(head=RegressionHeadConfig(dim=32, n_layers=2, n_heads=2))),
    ],
)
def test_flops_are_those_that_torch_counts(case, config):
    objective, batch, row = case(config)
    model = build_model(config, seed=0)
    counted = counted_flops(model, {"x": objective}, {"x": batch}).get_total_flops()
    assert sized(config, row).flops == pytest.approx(counted, rel=1e-9)


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "bf16_weights"])
@pytest.mark.parametrize(
    ("case", "config", "again"),
    [
        (text_case, language(), ()),
        (text_case, language(n_kv_heads=2, qk_norm=True, norm_after_embedding=True), ()),
        (text_case, language(), ("language",)),
        (caption_case, vlm(), ()),
        (caption_case, vlm(), ("vision",)),
        (robot_case, vla(), ()),
        (robot_case, vla(), ("language", "head")),
        (robot_case, vla(head=flow_config(time="adaln", ffn_dim=64)), ()),
    ],
)
def test_kept_bytes_are_those_that_autograd_keeps(case, config, again, precision):
    objective, batch, row = case(config)
    model = build_model(config, seed=0)
    recompute(model, again)
    if precision == "bf16_weights":  # as FSDP's copies are
        model = model.to(torch.bfloat16)
    batch = objective.prepare(batch)

    def loss():
        with torch.autocast("cpu", torch.bfloat16, enabled=precision != "fp32"):
            return objective(model, batch, StepKey(seed=0, step=0))["loss"]

    kept = kept_bytes(model, loss)
    cost = sized(config, row, training={"precision": precision}, resources={"recompute": again})
    expected = cost.memory["activations"]
    if row.targets:
        expected += 4 * 300 * 64  # the gradient of the output layer, which is `loss` in a cost
    copies = cost.memory.get("bf16 copies", 0)
    if again:  # autocast's copies are remade with the blocks
        assert expected <= kept * 1.03 and kept <= (expected + copies) * 1.03
    else:
        # A modulated head keeps some of what it gates in half precision.
        loose = 0.04 if precision == "bf16" else 0.015
        assert expected + copies == pytest.approx(kept, rel=loose)


@pytest.mark.parametrize(
    ("policy", "micro_batch", "gib"),
    [(False, 4, 43.9), (False, 8, 62.2), (True, 8, 39.3), (True, 16, 47.9)],
)
def test_it_says_what_an_h100_took(policy, micro_batch, gib):
    """Peaks of torch's allocator, benchmarks/results.md: bf16 autocast, uncompiled, one GPU."""
    config, row = load_preset("llm_1b"), Rows(modality="text", samples=16, positions=2048)
    row = Rows(modality="text", samples=16, positions=2048, targets=2048)
    if policy:
        config = paper_vla()
        row = Rows(modality="robot", samples=32, positions=4 * 64 + 41, images=4)
    resources = {"gpus": 1, "micro_batch": micro_batch}
    cost = sized(config, row, training={"precision": "bf16"}, resources=resources)
    assert cost.bytes_per_gpu / GIB == pytest.approx(gib, rel=0.03)


def test_the_state_is_split_as_the_strategy_says():
    config = language_config()
    elements = sized(config).parameters
    row = Rows(modality="text", samples=8, positions=16, targets=16)
    alone = sized(config, row, training={"ema": {"kind": "power"}}).memory
    whole = {"weights": 4, "gradients": 4, "moments": 8, "average": 4}
    assert {name: alone[name] for name in whole} == {n: b * elements for n, b in whole.items()}
    ddp = sized(config, row, resources={"num_workers": 4}).memory
    assert ddp["weights"] == ddp["gradient buckets"] == 4 * elements
    split = {"num_workers": 4, "strategy": "fsdp"}
    fsdp = sized(config, row, resources=split).memory
    assert fsdp["weights"] == elements and fsdp["moments"] == 2 * elements
    groups = {"num_workers": 4, "strategy": "hsdp", "shard_size": 2}
    assert sized(config, row, resources=groups).memory["weights"] == 2 * elements
    pieces = sized(config, row, resources={**split, "micro_batch": 1}).memory
    assert pieces["gradients not yet shared"] == 4 * elements
    assert pieces["activations"] == fsdp["activations"] / 2


def test_fsdp_keeps_whole_gradients_between_micro_batches():
    """What `gradients not yet shared` stands for, in float32."""
    model = build_model(language_config(), seed=0)
    elements = sum(p.numel() for p in model.parameters())
    parallelise(model, World(), "fsdp", bf16_weights=True)
    with gradient_sync(model, enabled=False):
        model(torch.randint(0, 40, (2, 12))).float().sum().backward()
    groups = [module._get_fsdp_state()._fsdp_param_group for module in _sharded(model)]
    gradients = [p.unsharded_accumulated_grad for g in groups if g for p in g.fsdp_params]
    assert sum(g.numel() * g.element_size() for g in gradients) == 4 * elements


def _sharded(model):
    return [module for module in model.modules() if hasattr(module, "_get_fsdp_state")]


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize(
    ("config", "frozen"),
    [
        (vla(), ("backbone",)),
        (vla(), ("backbone.vision",)),
        (vla(), ("backbone.language", "backbone.projector")),
        (vla(lora=LoRAConfig(rank=2)), ()),
    ],
    ids=["backbone", "vision", "language", "lora"],
)
def test_what_is_frozen_is_not_trained(config, frozen):
    objective, batch, row = robot_case(config)
    model = build_model(config, seed=0)
    freeze(model, frozen)
    cost = sized(config, row, frozen=frozen)
    assert cost.trained == sum(p.numel() for p in model.parameters() if p.requires_grad)
    counted = counted_flops(model, {"x": objective}, {"x": batch}).get_total_flops()
    # The adapters' own products are left out.
    assert cost.flops == pytest.approx(counted, rel=0.06 if config.lora else 1e-9)
    kept = kept_bytes(
        model, lambda: objective(model, objective.prepare(batch), StepKey(seed=0, step=0))["loss"]
    )
    # An upper bound: a frozen linear does not keep its input.
    assert kept <= cost.memory["activations"] * 1.03


def test_hours_count_what_is_computed_again():
    row = text_case(language())[2]
    plain, again = (
        sized(language(), row),
        sized(language(), row, resources={"recompute": ["language"]}),
    )
    assert plain.flops == again.flops
    assert again.gpu_hours(1e12, 0.5) == pytest.approx(4 / 3 * plain.gpu_hours(1e12, 0.5))
    assert plain.gpu_hours(1e12, 0.5) == pytest.approx(plain.flops / 5e11 / 3600)


def size(capsys, *arguments: str):
    assert main(["size", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_command_sizes_every_training_of_a_pipeline(capsys):
    found = size(capsys, "demo")
    assert list(found) == ["llm", "vlm", "vla", "vla_blind", "vla_untrained"]
    # 2048 tokens of the tokenizer, and one more for images, one for observations.
    config = load_preset("demo_llm").model_copy(update={"vocab_size": 2048})
    assert found["llm"]["parameters"] == count_parameters(config)
    assert found["vlm"]["parts"]["language"]["parameters"] == found["llm"]["parameters"] + 128
    assert found["vla"]["parts"]["language"]["parameters"] == found["llm"]["parameters"] + 256
    assert found["llm"]["tokens"] == 200 * 32 * 128
    assert found["vla_untrained"]["flops"] == found["vla_untrained"]["steps"] == 0
    seeing, blind = (
        next(row for row in found[name]["rows"] if row["modality"] == "robot")
        for name in ("vla", "vla_blind")
    )
    # Two cameras of four tokens, 64 of an instruction, <obs>; rows are multiples of 8.
    assert (seeing["positions"], seeing["images"]) == (80, 2)
    assert (blind["positions"], blind["images"]) == (72, 0)


def test_the_command_takes_overrides_and_says_what_is_wrong(capsys):
    more = size(capsys, "demo", "llm", "-o", "llm.training.steps=400", "--mfu", "0.2")["llm"]
    less = size(capsys, "demo", "llm", "--mfu", "0.4")["llm"]
    assert more["gpu_hours"] == pytest.approx(4 * less["gpu_hours"])
    a100 = size(capsys, "demo", "llm", "--gpu", "A100")["llm"]
    assert a100["gpu_hours"] == pytest.approx(less["gpu_hours"] * 989 / 312)
    for arguments, told in (
        (["demo", "text"], "stage 'text' (convert_text) trains no model"),
        (["demo", "lm"], "no stage 'lm' (did you mean 'llm' or 'vlm'?)"),
        (["demo", "--gpu", "B300"], "the peak of a 'B300' is not known"),
        (["demo", "--mfu", "40"], "mfu 40 is not between 0 and 1"),
        (["demo", "-o", "llm.training.tokens=3e6"], "exactly one budget"),
    ):
        assert main(["size", *arguments]) == 2
        assert told in capsys.readouterr().err
    assert main(["size", "demo", "vla"]) == 0
    shown = capsys.readouterr().out
    assert "2,046,090" in shown or "2.05M" in shown, shown
    assert "activations" in shown and "robot" in shown


def test_an_imported_model_says_nothing_of_its_size(tmp_path):
    pipeline = tmp_path / "p.yaml"
    pipeline.write_text(
        """
include: pipelines/demo
stages:
  llm: {kind: import_llm, recipe: {path: nowhere}}
"""
    )
    from foundry_core.pipeline.graph import load_pipeline
    from foundry_core.pipeline.registry import stage_kind
    from foundry_core.training.sizing.stages import cost_of

    loaded = load_pipeline(str(pipeline), kinds=stage_kind)
    with pytest.raises(FoundryError, match="stage 'vlm': the size of a vlm with a transformers"):
        cost_of(loaded, "vlm")


def test_a_native_model_is_sized_without_torch():
    code = "import sys; from flows.cli import main; main(['size', 'foundry-vla-1.7b', '--json']); "
    code += "sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
