import pytest
import torch
from model_zoo import IMAGE, OBS, VOCABULARY, build, robot_batch, vla_config

from foundry_core.errors import FoundryError
from foundry_core.models.config import HFVLMConfig
from foundry_core.models.huggingface.families import Sequences, mrope_positions
from foundry_core.models.huggingface.vlm import HFVLM
from foundry_core.models.io import load_model, save_model
from foundry_core.models.noise import Key

TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": None,
}
SIGLIP = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 32,
    "patch_size": 8,
}
QWEN_VISION = {
    "depth": 2,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_heads": 2,
    "patch_size": 8,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "out_hidden_size": 32,
}
IMAGES = {"image_token_id": IMAGE}
FAMILIES = {
    "smolvlm": {
        **IMAGES,
        "scale_factor": 2,
        "vision_config": SIGLIP,
        "text_config": {"model_type": "llama", **TEXT},
    },
    "idefics3": {
        **IMAGES,
        "scale_factor": 2,
        "vision_config": SIGLIP,
        "text_config": {"model_type": "llama", **TEXT},
    },
    "qwen3_vl": {
        **IMAGES,
        "vision_config": {
            **QWEN_VISION,
            "num_position_embeddings": 16,
            "deepstack_visual_indexes": [0],
        },
        "text_config": {
            **TEXT,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "mrope_section": [2, 1, 1],
            },
        },
        "vision_start_token_id": 45,
    },
    "qwen2_5_vl": {
        **IMAGES,
        "vision_config": {**QWEN_VISION, "window_size": 32, "fullatt_block_indexes": [1]},
        "text_config": {
            **TEXT,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 1e4,
                "mrope_section": [2, 1, 1],
            },
        },
        "vision_start_token_id": 45,
    },
    "paligemma": {
        **IMAGES,
        "projection_dim": 32,
        "vision_config": {
            "model_type": "siglip_vision_model",
            **SIGLIP,
            "image_size": 16,
            "projection_dim": 32,
        },
        "text_config": {"model_type": "gemma", **TEXT},
    },
    "gemma3": {
        **IMAGES,
        "mm_tokens_per_image": 4,
        "vision_config": SIGLIP,
        "text_config": {"model_type": "gemma3_text", **TEXT},
    },
}


def hf_vlm(name: str) -> HFVLMConfig:
    size = 16 if name == "paligemma" else 32
    return HFVLMConfig(image_size=size, config={"model_type": name, **FAMILIES[name]})


def policy(name: str):
    return build(vla_config(backbone=hf_vlm(name))).eval()


def batch_for(model, lengths):
    return robot_batch(lengths, size=model.config.backbone.image_size)


@pytest.mark.parametrize("name", FAMILIES)
def test_condition_sees_images_and_no_padding(name):
    model = policy(name)
    assert model.backbone.tokens_per_image == 4
    batch = batch_for(model, [6, 2])
    together = model.condition(batch["images"], batch["tokens"], batch["token_mask"])
    assert together.shape == (2, 1, 4 * 32)
    alone = model.condition(
        batch["images"][1:], batch["tokens"][1:, :11], batch["token_mask"][1:, :11]
    )
    torch.testing.assert_close(together[1:], alone, atol=1e-5, rtol=0)
    other = model.condition(255 - batch["images"], batch["tokens"], batch["token_mask"])
    assert (other - together).abs().max() > 1e-3


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_are_transformers_own_on_text(name):
    model = build(hf_vlm(name)).eval()
    tokens = torch.randint(1, 40, (2, 7))
    mask = torch.ones_like(tokens)
    theirs = model.model(input_ids=tokens, attention_mask=mask).logits
    torch.testing.assert_close(model(None, tokens), theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["smolvlm", "qwen3_vl"])
def test_training_and_round_trip(tmp_path, name):
    model = build(vla_config(backbone=hf_vlm(name)))
    batch = batch_for(model, [4, 2])
    total, count = model.training_loss_terms(
        *(batch[k] for k in ("images", "tokens", "token_mask", "proprio", "actions")),
        batch["action_mask"],
        Key(0, 0, batch["draw_ids"]),
    )
    (total.sum() / count).backward()
    assert model.backbone.model.get_input_embeddings().weight.grad[OBS].any()
    save_model(tmp_path, model)
    loaded, _ = load_model(tmp_path)
    inputs = [batch[k] for k in ("images", "tokens", "token_mask", "proprio")]
    ours = model.eval().act(*inputs, seeds=1, steps=0)
    torch.testing.assert_close(loaded.eval().act(*inputs, seeds=1, steps=0), ours)


def test_qwen_patches_are_the_processor_s():
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    model = HFVLM(hf_vlm("qwen3_vl"))
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    processor = Qwen2VLImageProcessorPil(
        patch_size=8,
        merge_size=2,
        temporal_patch_size=2,
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
        size={"shortest_edge": 16 * 16, "longest_edge": 64 * 64},
    )
    theirs = processor(images=[i.permute(1, 2, 0).numpy() for i in images], return_tensors="pt")
    ours = model._family.inputs(
        model.model.config,
        (images.float() / 127.5 - 1)[:, None],
        Sequences(tokens=torch.zeros(2, 1), mask=torch.ones(2, 1, dtype=torch.bool), prompt=None),
    )
    torch.testing.assert_close(ours["pixel_values"], theirs["pixel_values"])
    assert torch.equal(ours["image_grid_thw"], theirs["image_grid_thw"])


@pytest.mark.parametrize("name", ["qwen3_vl", "qwen2_5_vl"])
def test_qwen_positions_are_transformers_own(name):
    model = HFVLM(hf_vlm(name))
    image = [IMAGE] * 4
    tokens = torch.tensor([[45, *image, 1, 45, *image, 2, 3], [0, 45, *image, 1, 2, 45, *image]])
    mask = tokens != 0
    is_image = tokens == IMAGE
    theirs, _ = model.model.model.get_rope_index(
        tokens,
        mm_token_type_ids=is_image.int(),
        image_grid_thw=torch.tensor([[1, 4, 4]] * 4),
        attention_mask=mask.long(),
    )
    ours = mrope_positions(is_image, mask, side=2)
    assert torch.equal(ours[:, mask], theirs[:, mask])


def test_wrong_number_of_placeholders():
    model = build(hf_vlm("smolvlm"))
    batch = robot_batch([4])
    with pytest.raises(FoundryError, match="8 image tokens"):
        model(batch["images"][:, :1], batch["tokens"])


def test_families_without_an_adapter_are_refused():
    config = HFVLMConfig(
        image_size=32,
        config={
            "model_type": "llava",
            "vision_config": {"model_type": "clip_vision_model", **SIGLIP},
            "text_config": {"model_type": "llama", **TEXT},
        },
    )
    with pytest.raises(FoundryError, match="no adapter for model_type 'llava'"):
        HFVLM(config)
