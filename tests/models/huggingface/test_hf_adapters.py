"""A policy's adapters as peft has them, on the exported backbone."""

import json

import pytest
import torch
from model_zoo import build, language_config, robot_batch, vla_config, vlm_config
from safetensors.torch import load_file
from test_hf_vlm import hf_vlm
from transformers import AutoModelForImageTextToText

from foundry_core.errors import FoundryError
from foundry_core.models.config import LoRAConfig, ProjectorConfig, ViTConfig
from foundry_core.models.huggingface.export import export_hf
from foundry_core.models.io import save_model

BATCH = robot_batch([5, 5])


def exported(tmp_path, kind, lora):
    backbone = (
        hf_vlm(kind)
        if kind != "native"
        else vlm_config(
            language=language_config(norm="rms", n_kv_heads=2),
            vision=ViTConfig(image_size=32, patch_size=8, dim=24, n_layers=2, n_heads=3),
            projector=ProjectorConfig(pixel_shuffle=2),
        )
    )
    model = build(vla_config(backbone=backbone, lora=lora)).eval()
    save_model(tmp_path / "ours", model)
    export_hf(tmp_path / "ours", tmp_path / "theirs", adapters="apart")
    with torch.no_grad():
        logits = model.backbone(BATCH["images"], BATCH["tokens"])
    return logits, AutoModelForImageTextToText.from_pretrained(tmp_path / "theirs").eval()


def answers(model):
    pixels = BATCH["images"].float() / 127.5 - 1
    with torch.no_grad():
        return model(input_ids=BATCH["tokens"], pixel_values=pixels).logits


LORAS = {
    "text": LoRAConfig(rank=2, alpha=3.0),
    "all": LoRAConfig(rank=2, alpha=3.0, dropout=0.1, targets="all-linear"),
}


@pytest.mark.parametrize("kind", ["native", "smolvlm"])
@pytest.mark.parametrize("lora", LORAS.values(), ids=LORAS.keys())
def test_peft_reads_them(tmp_path, kind, lora):
    peft = pytest.importorskip("peft")
    ours, base = exported(tmp_path, kind, lora)
    assert (answers(base) - ours).abs().max() > 1e-3  # without them it is another model
    adapted = peft.PeftModel.from_pretrained(base, str(tmp_path / "theirs" / "adapter")).eval()
    torch.testing.assert_close(answers(adapted), ours, atol=1e-5, rtol=0)
    torch.testing.assert_close(answers(adapted.merge_and_unload()), ours, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["native", "smolvlm"])
def test_the_format(tmp_path, kind):
    """Where peft is not installed: names, shapes, and W + alpha/r · B·A by hand."""
    ours, base = exported(tmp_path, kind, LORAS["all"])
    folder = tmp_path / "theirs" / "adapter"
    settings = json.loads((folder / "adapter_config.json").read_text())
    assert (settings["peft_type"], settings["r"], settings["lora_alpha"]) == ("LORA", 2, 3.0)
    assert settings["lora_dropout"] == 0.1
    tensors = load_file(folder / "adapter_model.safetensors")
    weights = base.state_dict()
    for name in settings["target_modules"]:
        down = tensors.pop(f"base_model.model.{name}.lora_A.weight")
        up = tensors.pop(f"base_model.model.{name}.lora_B.weight")
        weights[f"{name}.weight"] += 3.0 / 2 * up @ down
    assert not tensors
    assert any("q_proj" in name and "vision" in name for name in settings["target_modules"])
    torch.testing.assert_close(answers(base), ours, atol=1e-5, rtol=0)


def test_a_model_without_adapters_is_one_error(tmp_path):
    save_model(tmp_path / "ours", build(vla_config()))
    with pytest.raises(FoundryError, match="has no low-rank adapters"):
        export_hf(tmp_path / "ours", tmp_path / "theirs", adapters="apart")
