"""Sizes of transformers VLMs against the modules, and where their architecture is found."""

import pytest
import torch
from model_zoo import OBS, flow_config
from test_sizing import IMAGE, caption_case, kept_bytes, robot_case, sized
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from foundry_core.errors import FoundryError
from foundry_core.models.build import build_model
from foundry_core.models.config import HFVLMConfig, VLAConfig
from foundry_core.models.presets import load_preset, preset_of_origin
from foundry_core.training.flops import step_flops
from foundry_core.training.mixed_batch import StepKey
from foundry_core.training.sizing import huggingface as sizes_of_transformers
from foundry_core.training.sizing.huggingface import module_parts
from foundry_core.training.sizing.models import image_tokens, parts_of
from tests.hf_checkpoints import FAMILIES, make_vlm

TEXT = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [4, 2, 2]},
}
VISION = {
    "depth": 2,
    "hidden_size": 48,
    "intermediate_size": 112,
    "num_heads": 4,
    "patch_size": 8,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "out_hidden_size": 64,
    "num_position_embeddings": 64,
    "deepstack_visual_indexes": [0],
}


def qwen() -> HFVLMConfig:
    settings = {"model_type": "qwen3_vl", "image_token_id": IMAGE, "tie_word_embeddings": True}
    text = {**TEXT, "tie_word_embeddings": True}
    return HFVLMConfig(
        image_size=128, config={**settings, "text_config": text, "vision_config": VISION}
    )


def tiny(family: str) -> HFVLMConfig:
    side = 16 if family == "paligemma" else 32
    settings = {"model_type": family, "image_token_id": IMAGE, **FAMILIES[family]["config"]}
    return HFVLMConfig(image_size=side, config=settings)


def counted(model, objective, batch) -> int:
    """Fused kernels of a CPU are not counted."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        objective(model, objective.prepare(batch), StepKey(seed=0, step=0))["loss"].backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("family", [None, *FAMILIES])
def test_parameters_and_flops_are_those_of_the_module(family):
    config = tiny(family) if family else qwen()
    model = build_model(config, seed=0)
    objective, batch, row = caption_case(Shown(model))
    cost = sized(config, row)
    assert cost.parameters == sum(p.numel() for p in model.parameters())
    assert cost.flops == pytest.approx(counted(model, objective, batch), rel=1e-9)
    live, how = step_flops(model, {"captions": objective}, {"captions": batch})
    assert (live, how) == (pytest.approx(cost.flops), "products of its shapes")


@pytest.mark.parametrize("seeing", [True, False])
def test_a_policys_flops_are_those_of_its_step(seeing):
    """Of a blind one, too, whose rows lose their images."""
    sizes = {"horizon": 16, "action_dim": 20, "proprio_dim": 20, "proprio_steps": 1}
    parts = {"backbone": qwen(), "head": flow_config(num_noise_samples=2), "obs_token_id": OBS}
    config = VLAConfig.model_validate({**parts, **sizes, "tap_layers": 2, "use_images": seeing})
    model = build_model(config, seed=0)
    objective, batch, _ = robot_case(config.model_copy(update={"backbone": Shown(model.backbone)}))
    live, _ = step_flops(model, {"robot": objective}, {"robot": batch})
    assert live == pytest.approx(counted(model, objective, batch), rel=1e-9)


def test_what_nobody_can_count_ends_no_training(monkeypatch):
    def refuse(*_):
        raise FoundryError("the size of an action head 'odd' is not known here")

    model = build_model(qwen(), seed=0)
    objective, batch, _ = caption_case(Shown(model))
    monkeypatch.setattr(sizes_of_transformers, "module_parts", refuse)
    found, why = step_flops(model, {"captions": objective}, {"captions": batch})
    assert found is None and "no MFU: its products cannot be counted" in why


class Shown:
    """What a case asks of a backbone's config."""

    def __init__(self, model) -> None:
        self.tokens_per_image, self.image_size = model.tokens_per_image, model.config.image_size


@pytest.mark.parametrize("precision", ["fp32", "bf16", "bf16_weights"])
def test_kept_bytes_are_those_that_autograd_keeps(precision):
    model = build_model(qwen(), seed=0)
    if precision == "bf16_weights":
        model = model.to(torch.bfloat16)
    objective, batch, row = caption_case(Shown(model))
    batch = objective.prepare(batch)

    def loss():
        with torch.autocast("cpu", torch.bfloat16, enabled=precision != "fp32"):
            return objective(model, batch, StepKey(seed=0, step=0))["loss"]

    memory = sized(qwen(), row, training={"precision": precision}).memory
    expected = memory["activations"] + memory.get("bf16 copies", 0) + 4 * 300 * 64
    assert expected == pytest.approx(kept_bytes(model, loss), rel=0.03)


def gemma(family: str, layers: int) -> HFVLMConfig:
    document = tiny(family).model_dump(exclude_none=True)
    text = document["config"]["text_config"]
    text |= {"num_hidden_layers": layers, "max_position_embeddings": 512}
    if "layer_types" in text:
        text["layer_types"] = text["layer_types"][:1] * layers
    return HFVLMConfig(**document)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("family", ["paligemma", "gemma3"])
def test_a_layer_of_gemma_keeps_what_autograd_keeps(family, precision):
    kept, said = [], []
    for layers in (2, 3):
        config = gemma(family, layers)
        model = build_model(config, seed=0)
        objective, batch, row = caption_case(Shown(model))
        batch = objective.prepare(batch)

        def loss(model=model, objective=objective, batch=batch):
            with torch.autocast("cpu", torch.bfloat16, enabled=precision != "fp32"):
                return objective(model, batch, StepKey(seed=0, step=0))["loss"]

        kept.append(kept_bytes(model, loss))
        memory = sized(config, row, training={"precision": precision}).memory
        said.append(memory["activations"] + memory.get("bf16 copies", 0))
    assert said[1] - said[0] == pytest.approx(kept[1] - kept[0], rel=0.01)


def test_qwen3_vl_2b_is_known_by_its_name():
    """2.13B; without its table, and with the paper's head, the 2.1B of its policy's name."""
    named = HFVLMConfig(source="Qwen/Qwen3-VL-2B-Instruct")
    assert preset_of_origin("Qwen/Qwen3-VL-2B-Instruct") == load_preset("qwen3_vl_2b")
    cost = sized(named)
    assert cost.parameters == 2_127_532_032
    assert image_tokens(named).each == 49
    sizes = {"horizon": 16, "action_dim": 20, "proprio_dim": 20, "proprio_steps": 1}
    head = load_preset("head_325m")
    policy = sized(VLAConfig(backbone=named, head=head, **sizes))
    assert round((policy.parameters - 151936 * 2048) / 1e9, 1) == 2.1
    with pytest.raises(FoundryError, match="architecture of 'some/other' is not known here"):
        parts_of(HFVLMConfig(source="some/other"))


def test_a_folder_says_what_is_in_it(tmp_path):
    folder = make_vlm(tmp_path / "qwen", "qwen3_vl")
    config = HFVLMConfig(path=str(folder))
    loaded = build_model(config)
    assert sized(config).parameters == sum(p.numel() for p in loaded.parameters())
    assert image_tokens(config).each == loaded.tokens_per_image
    # What its chat template writes around images counts, too.
    assert image_tokens(config).marks == loaded.marks
    assert parts_of(config) == module_parts(loaded)
    (folder / "model.safetensors").unlink()
    assert sized(config).parameters > 0, "the weights are not read"
    (folder / "config.json").unlink()
    with pytest.raises(FoundryError, match=r"holds no config\.json"):
        parts_of(config)
