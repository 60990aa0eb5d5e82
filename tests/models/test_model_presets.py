import subprocess
import sys

import pytest
import torch
from model_zoo import count_parameters

from foundry_core.errors import FoundryError
from foundry_core.models.build import build_model
from foundry_core.models.presets import load_preset, preset_names
from foundry_core.models.vision import build_vision

LANGUAGE = {
    "llm_11m": (887_808, 10_570_944),
    "llm_100m": (40_919_040, 92_563_456),
    "llm_410m": (308_379_648, 411_666_432),
    "llm_1b": (1_233_321_984, 1_439_895_552),
}
VISION = {
    "vit_tiny": (256, 254_144),
    "vit_b_14_224": (256, 85_704_960),
    "vit_b_16_512": (1024, 86_433_024),
    "vit_so400m_14_224": (256, 412_442_352),
}


@pytest.mark.parametrize(("name", "counts"), LANGUAGE.items(), ids=LANGUAGE)
def test_language_counts(name, counts):
    with torch.device("meta"):
        model = build_model(load_preset(name))
    blocks = sum(p.numel() for p in model.blocks.parameters())
    assert (blocks, sum(p.numel() for p in model.parameters())) == counts


@pytest.mark.parametrize(("name", "facts"), VISION.items(), ids=VISION)
def test_vision_counts(name, facts):
    config = load_preset(name)
    with torch.device("meta"):
        tower = build_vision(config)
    assert (config.grid**2, sum(p.numel() for p in tower.parameters())) == facts


def test_paper_sizes():
    vlm = load_preset("foundry_vlm").model_copy(update={"image_token_id": 50431})
    assert vlm.tokens_per_image == 64
    vla = load_preset("foundry_vla").model_copy(
        update={
            "backbone": vlm,
            "horizon": 16,
            "action_dim": 20,
            "proprio_dim": 20,
            "proprio_steps": 1,
            "obs_token_id": 50430,
        }
    )
    head = count_parameters(vla) - count_parameters(vlm)
    assert head == pytest.approx(325e6, rel=2e-3)


def test_demo_sizes():
    language = load_preset("demo_llm").model_copy(update={"vocab_size": 2048})
    vlm = load_preset("demo_vlm").model_copy(update={"language": language, "image_token_id": 2046})
    assert vlm.tokens_per_image == 4
    assert count_parameters(vlm) < 1.7e6


def test_all_presets_are_valid():
    assert len(preset_names()) >= 15
    for name in preset_names():
        load_preset(name)
    with pytest.raises(FoundryError, match="no model preset 'llm_2b'"):
        load_preset("llm_2b")


def test_configs_import_no_torch():
    modules = "foundry_core.models.presets, foundry_core.models.config"
    code = f"import {modules}, sys; print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"
