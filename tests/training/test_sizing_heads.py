"""Sizes of every registered head, of encoders and of adapters by pattern, against the modules."""

import subprocess
import sys

import pytest
import torch
from model_zoo import OBS, count_parameters, language_config, vlm_config
from model_zoo import vla_config as tiny_vla
from test_sizing import (  # noqa: F401
    as_on_a_gpu,
    kept_bytes,
    robot_case,
    size,
    sized,
    vla,
)
from test_sizing_huggingface import qwen

from foundry_core.models.build import build_model
from foundry_core.models.config import (
    ConvViTConfig,
    EncoderConfig,
    HFTextConfig,
    HFVisionConfig,
    LoRAConfig,
    ResNetConfig,
    VLAConfig,
)
from foundry_core.models.heads import HEADS
from foundry_core.models.heads.act import ActHeadConfig
from foundry_core.models.heads.bins import BinsHeadConfig
from foundry_core.models.heads.diffusion import DiffusionHeadConfig
from foundry_core.models.heads.fast import FastHeadConfig
from foundry_core.models.heads.flow import FlowHeadConfig
from foundry_core.models.heads.pi0 import Pi0HeadConfig
from foundry_core.models.heads.regression import RegressionHeadConfig
from foundry_core.models.lora import apply_lora
from foundry_core.models.sizes import kind_of
from foundry_core.training.config import TrainingConfig, TrainResources
from foundry_core.training.flops import counted_flops
from foundry_core.training.mixed_batch import StepKey
from foundry_core.training.optim import freeze
from foundry_core.training.sizing.cost import stage_cost
from foundry_core.training.sizing.models import needs_torch, parts_of
from foundry_core.training.sizing.workload import Rows

SHAPE = {"dim": 32, "n_layers": 2, "n_heads": 4, "ffn_dim": 64}
WORDS = {"bins": 16, "token_ids": tuple(range(8, 24))}
FAST = FastHeadConfig(
    pieces=32, token_ids=tuple(range(8, 41)), low=-2, high=2, merges=()
)  # fmt: skip
HEAD_CONFIGS = {
    "flow": FlowHeadConfig(**SHAPE, num_noise_samples=3),
    "diffusion": DiffusionHeadConfig(**SHAPE, num_noise_samples=2, time="adaln"),
    "regression": RegressionHeadConfig(**SHAPE),
    "act": ActHeadConfig(**SHAPE, latent=6, style_layers=3),
    "bins": BinsHeadConfig(**WORDS),
    "fast": FAST,
    "pi0": Pi0HeadConfig(**SHAPE, num_noise_samples=3),
    "pi0 by turns": Pi0HeadConfig(
        **SHAPE, num_noise_samples=2, attention="alternate", time="adaln", norm="rms"
    ),
    "pi0 with a token of time": Pi0HeadConfig(**SHAPE, time="token"),
    "pi0 insulated": Pi0HeadConfig(**SHAPE, insulated=True),
    "pi0 that speaks": Pi0HeadConfig(**SHAPE, insulated=True, tokens=BinsHeadConfig(**WORDS)),
}


def test_every_registered_head_has_a_size():
    assert set(HEADS.names()) <= {config.kind for config in HEAD_CONFIGS.values()}


@pytest.mark.parametrize("name", HEAD_CONFIGS)
@pytest.mark.parametrize("proprio", [6, 0])
def test_parameters_are_those_of_the_modules(name, proprio):
    steps = {"proprio_dim": proprio} | ({} if proprio else {"proprio_steps": 1})
    config = tiny_vla(head=HEAD_CONFIGS[name], **steps)
    if name == "act" and not proprio:
        return  # its style's positions are of the state's steps
    assert sized(config).parameters == count_parameters(config)


def case(name):
    """A policy with a chunk of some length, its batch and rows."""
    config = vla(head=HEAD_CONFIGS[name], horizon=24, action_dim=6)
    return config, *robot_case(config)


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("name", [n for n in HEAD_CONFIGS if n not in ("fast",)])
def test_flops_are_those_that_torch_counts(name):
    config, objective, batch, row = case(name)
    model = build_model(config, seed=0)
    counted = counted_flops(model, {"x": objective}, {"x": batch}).get_total_flops()
    assert sized(config, row).flops == pytest.approx(counted, rel=0.02)


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", [n for n in HEAD_CONFIGS if n not in ("fast",)])
def test_kept_bytes_are_about_those_that_autograd_keeps(name, precision):
    config, objective, batch, row = case(name)
    model = build_model(config, seed=0)
    batch = objective.prepare(batch)

    def loss():
        with torch.autocast("cpu", torch.bfloat16, enabled=precision != "fp32"):
            return objective(model, batch, StepKey(seed=0, step=0))["loss"]

    memory = sized(config, row, training={"precision": precision}).memory
    expected = memory["activations"] + memory.get("bf16 copies", 0)
    assert expected == pytest.approx(kept_bytes(model, loss), rel=0.1)


CLIP = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
TOWERS = {
    "conv": ConvViTConfig(image_size=32, dim=16, n_layers=2, n_heads=2, stem_dims=(8, 8)),
    "resnet": ResNetConfig(image_size=128, dim=16, stages=(1, 2), groups=4),
    "clip": HFVisionConfig(
        image_size=32, patch_size=8, width=32,
        config={"model_type": "clip_vision_model", "image_size": 32, "patch_size": 8,
                "num_attention_heads": 2, **CLIP},
    ),
}  # fmt: skip
TEXTS = {
    "none": None,
    "words": language_config(),
    "clip": HFTextConfig(
        config={"model_type": "clip_text_model", "vocab_size": 60, "num_attention_heads": 2,
                "max_position_embeddings": 32, "eos_token_id": 49, **CLIP},
    ),
}  # fmt: skip


def on_encoders(vision, text, **changes):
    backbone = EncoderConfig(vision=TOWERS[vision], text=TEXTS[text], dim=24, images=2, **changes)
    return tiny_vla(backbone=backbone, head=HEAD_CONFIGS["act"])


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("vision", TOWERS)
def test_parameters_of_encoders_are_those_of_the_modules(vision, text):
    for pool in ("none", "mean"):
        config = on_encoders(vision, text, pool=pool)
        assert sized(config).parameters == count_parameters(config)


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize(
    ("vision", "text"), [("conv", "words"), ("resnet", "none"), ("clip", "none")]
)
def test_flops_and_kept_bytes_of_encoders(vision, text):
    config = on_encoders(vision, text)
    objective, batch, row = seen_by_encoders(config)
    model = build_model(config, seed=0)
    counted = counted_flops(model, {"x": objective}, {"x": batch}).get_total_flops()
    cost = sized(config, row)
    assert cost.flops == pytest.approx(counted, rel=0.03)
    batch = objective.prepare(batch)
    kept = kept_bytes(model, lambda: objective(model, batch, StepKey(seed=0, step=0))["loss"])
    assert cost.memory["activations"] == pytest.approx(kept, rel=0.15)


def seen_by_encoders(config):
    from foundry_core.training.objectives import ActionLoss

    rows, length, side = 3, 12, config.backbone.image_size
    tokens = torch.randint(1, 40, (rows, length))
    tokens[:, -1] = OBS
    shape = (rows, config.horizon, config.action_dim)
    batch = {
        "images": torch.zeros(rows, 2, 3, side, side, dtype=torch.uint8),
        "tokens": tokens,
        "token_mask": torch.ones_like(tokens, dtype=torch.bool),
        "proprio": torch.zeros(rows, config.proprio_steps, config.proprio_dim),
        "actions": torch.zeros(shape),
        "action_mask": torch.ones(shape, dtype=torch.bool),
        "draw_ids": torch.arange(rows),
    }
    objective = ActionLoss(image_token_id=-1, obs_token_id=OBS, tokens_per_image=0)
    return objective, batch, Rows(modality="robot", samples=rows, positions=length, images=2)


@pytest.mark.parametrize(
    "lora",
    [
        LoRAConfig(rank=4, targets="all-linear"),
        LoRAConfig(rank=2, targets=("attention.*", "vision.*"), dropout=0.1),
        LoRAConfig(rank=2, whole=("vision", "projector")),
        LoRAConfig(rank=2, targets=("qkv", "language.blocks.0.*"), whole=("language.blocks.1",)),
    ],
)
def test_adapters_of_any_pattern_are_counted(lora):
    config = tiny_vla(lora=lora)
    cost = sized(config)
    model = build_model(config, seed=0)
    assert cost.parameters == count_parameters(config)
    assert cost.trained == sum(p.numel() for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    "lora",
    [
        LoRAConfig(rank=4),
        LoRAConfig(rank=2, targets=("qkv", "down")),
        LoRAConfig(rank=2, targets="all-linear"),
    ],
)
@pytest.mark.parametrize("config", [language_config(), vlm_config(), qwen()], ids=kind_of)
def test_adapters_on_models_without_a_head(config, lora):
    if config.kind == "hf_vlm" and lora.targets == ("qkv", "down"):
        lora = LoRAConfig(rank=2, targets=("q_proj", "down_proj"))
    model = build_model(config, seed=0)
    apply_lora(model, lora)
    parts = parts_of(config, lora=lora)
    cost = stage_cost(parts, [], 1, TrainingConfig(steps=1), TrainResources())
    assert cost.parameters == sum(p.numel() for p in model.parameters())
    assert cost.trained == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert needs_torch(config, lora) == (lora.targets == "all-linear" or config.kind == "hf_vlm")


def test_the_command_sizes_adapters_of_every_stage(capsys):
    found = size(capsys, "demo", "vlm", "-o", "vlm.lora={rank: 4, whole: [projector]}")["vlm"]
    plain = size(capsys, "demo", "vlm")["vlm"]
    assert found["trained"] < 0.1 * found["parameters"] < 0.11 * plain["trained"]
    projector = found["parts"]["projector"]
    assert projector["trained"] == projector["parameters"]
    found = size(capsys, "demo", "llm", "-o", "llm.lora={rank: 4}")["llm"]
    assert found["trained"] < 0.1 * found["parameters"]


def test_adapters_by_pattern_on_a_vlm_of_transformers():
    sizes = {"horizon": 3, "action_dim": 5, "proprio_dim": 6, "proprio_steps": 2}
    lora = LoRAConfig(rank=2, targets=("self_attn.*_proj", "visual.*"))
    parts = {"backbone": qwen(), "head": HEAD_CONFIGS["pi0 by turns"], "lora": lora}
    config = VLAConfig.model_validate({**parts, **sizes, "obs_token_id": OBS, "tap_layers": 2})
    model = build_model(config, seed=0)
    freeze(model, ())
    cost = sized(config)
    assert cost.parameters == sum(p.numel() for p in model.parameters())
    assert cost.trained == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_new_heads_on_native_models_need_no_torch():
    code = """
import sys
from foundry_core.models.config import TransformerConfig, ViTConfig, VLAConfig, VLMConfig
from foundry_core.models.heads.pi0 import Pi0HeadConfig
from foundry_core.models.heads.bins import BinsHeadConfig
from foundry_core.training.sizing.models import parts_of
vlm = VLMConfig(language=TransformerConfig(vocab_size=64, dim=32, n_layers=2, n_heads=2),
                vision=ViTConfig(image_size=28, patch_size=14, dim=16, n_layers=1, n_heads=2))
sizes = {"horizon": 3, "action_dim": 5, "proprio_dim": 6, "proprio_steps": 1}
for head in (Pi0HeadConfig(dim=32, n_layers=2, n_heads=2), BinsHeadConfig()):
    parts_of(VLAConfig(backbone=vlm, head=head, **sizes))
sys.exit("torch" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
