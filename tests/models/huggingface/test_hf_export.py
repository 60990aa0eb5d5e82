import pytest
import torch
from model_zoo import (
    IMAGE,
    build,
    language_config,
    plain_tokens,
    robot_batch,
    vla_config,
    vlm_config,
)
from test_hf_vlm import hf_vlm
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
)

from foundry_core.errors import FoundryError
from foundry_core.models.config import LoRAConfig, ProjectorConfig, ViTConfig
from foundry_core.models.huggingface.export import export_hf
from foundry_core.models.io import save_model

SHAPES = {
    "llama": ("LlamaForCausalLM", {"norm": "rms", "n_kv_heads": 2, "rope_theta": 5e5}),
    "llama tied": ("LlamaForCausalLM", {"norm": "rms", "tie_embeddings": True, "head_dim": 16}),
    "qwen3": ("Qwen3ForCausalLM", {"norm": "rms", "n_kv_heads": 1, "qk_norm": True}),
    "stablelm": ("StableLmForCausalLM", {"norm": "layer", "n_kv_heads": 2}),
}


@pytest.mark.parametrize(("name", "changes"), SHAPES.values(), ids=SHAPES.keys())
def test_language_model_there(tmp_path, name, changes):
    model = build(language_config(**changes))
    save_model(tmp_path / "ours", model)
    export_hf(tmp_path / "ours", tmp_path / "theirs")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "theirs")
    assert type(theirs).__name__ == name
    tokens = plain_tokens(2, 20)
    with torch.no_grad():
        ours = model(tokens)
        torch.testing.assert_close(theirs(tokens).logits, ours, atol=1e-5, rtol=0)


def test_vlm_exports_to_idefics3(tmp_path):
    config = vlm_config(
        language=language_config(norm="rms", n_kv_heads=2),
        vision=ViTConfig(image_size=32, patch_size=8, dim=24, n_layers=2, n_heads=3),
        projector=ProjectorConfig(pixel_shuffle=2),
    )
    model = build(config)
    save_model(tmp_path / "ours", model)
    export_hf(tmp_path / "ours", tmp_path / "theirs")
    theirs = AutoModelForImageTextToText.from_pretrained(tmp_path / "theirs")
    batch = robot_batch([5, 5])
    with torch.no_grad():
        out = theirs(
            input_ids=batch["tokens"], pixel_values=batch["images"].float() / 127.5 - 1
        ).logits
        ours = model(batch["images"], batch["tokens"])
    torch.testing.assert_close(out, ours, atol=1e-5, rtol=0)
    assert theirs.config.image_token_id == IMAGE


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"norm_after_embedding": True}, "norm_after_embedding True"),
        ({"logit_soft_cap": 3.0}, "logit_soft_cap 3.0"),
        ({"qk_norm": True}, "qk_norm with norm layer"),
        ({"head_dim": 16}, "head_dim"),
    ],
)
def test_what_has_no_counterpart_is_named(tmp_path, changes, words):
    save_model(tmp_path / "ours", build(language_config(**changes)))
    with pytest.raises(FoundryError, match=words):
        export_hf(tmp_path / "ours", tmp_path / "theirs")


@pytest.mark.parametrize("merged", ["native", "smolvlm"])
def test_a_policy_exports_its_backbone_with_adapters_folded_in(tmp_path, merged):
    backbone = (
        hf_vlm(merged)
        if merged != "native"
        else vlm_config(
            language=language_config(norm="rms"),
            vision=ViTConfig(image_size=32, patch_size=8, dim=24, n_layers=2, n_heads=3),
            projector=ProjectorConfig(pixel_shuffle=2),
        )
    )
    model = build(vla_config(backbone=backbone, lora=LoRAConfig(rank=2))).eval()
    save_model(tmp_path / "ours", model)
    export_hf(tmp_path / "ours", tmp_path / "theirs")
    theirs = AutoModelForImageTextToText.from_pretrained(tmp_path / "theirs")
    assert not any("lora" in name for name in theirs.state_dict())
    batch = robot_batch([5, 5])
    pixels = batch["images"].float() / 127.5 - 1
    with torch.no_grad():
        out = theirs(input_ids=batch["tokens"], pixel_values=pixels).logits
        ours = model.backbone(batch["images"], batch["tokens"])
    torch.testing.assert_close(out, ours, atol=1e-5, rtol=0)


def test_a_conv_stem_has_no_counterpart(tmp_path):
    save_model(tmp_path / "ours", build(vlm_config()))
    with pytest.raises(FoundryError, match="vision conv_vit"):
        export_hf(tmp_path / "ours", tmp_path / "theirs")


def test_the_tokenizer_travels_along(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {"<|endoftext|>": 0, "<|pad|>": 1, "open": 2, "door": 3}
    tokenizer = Tokenizer(models.WordLevel(words))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    save_model(tmp_path / "ours", build(language_config(norm="rms")))
    tokenizer.save(str(tmp_path / "ours" / "tokenizer.json"))
    (tmp_path / "ours" / "tokenizer_config.json").write_text(
        '{"eos": "<|endoftext|>", "pad": "<|pad|>"}'
    )
    export_hf(tmp_path / "ours", tmp_path / "theirs")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "theirs")
    assert loaded("open door")["input_ids"] == [2, 3]
    assert loaded.eos_token_id == 0
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "theirs")
    assert (model.config.eos_token_id, model.config.pad_token_id) == (0, 1)
