"""Checkpoint folders of transformers models: a few thousand random weights, a tokenizer, a
processor and a chat template, as the hub has them."""

from pathlib import Path
from typing import Any

import tokenizers
import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    PreTrainedTokenizerFast,
)

from foundry_core.data.text.tokenizer import Tokenizer
from foundry_core.files import write_json

ROWS = 320
"""Of the embedding: more than any of the tokenizers has, as in Qwen's."""
TEXT = {
    "vocab_size": ROWS,
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
_QWEN_TEXT = {
    **TEXT,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]},
}
_QWEN_VISION = {
    "depth": 2,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_heads": 2,
    "patch_size": 8,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "out_hidden_size": 32,
}
_QWEN_TOKENS = {
    "eos_token": "<|im_end|>",
    "pad_token": "<|endoftext|>",
    "im_start": "<|im_start|>",
    "vision_bos_token": "<|vision_start|>",
    "vision_eos_token": "<|vision_end|>",
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
}
_QWEN_TURN = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for part in m.content %}"
    "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_SMOL_TOKENS = {
    "eos_token": "<end_of_utterance>",
    "pad_token": "<pad>",
    "bos_token": "<|im_start|>",
    "fake_image_token": "<fake_token_around_image>",
    "global_image_token": "<global-img>",
    "image_token": "<image>",
}
_SMOL_TURN = (
    "{{ bos_token }}{% for m in messages %}{{ m.role | capitalize }}"
    "{% if m.content[0].type == 'image' %}:{% else %}: {% endif %}{% for part in m.content %}"
    "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}{% endfor %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
_GEMMA_TOKENS = {
    "eos_token": "<eos>",
    "pad_token": "<pad>",
    "bos_token": "<bos>",
    "turn_start": "<start_of_turn>",
    "turn_end": "<end_of_turn>",
    "boi_token": "<start_of_image>",
    "eoi_token": "<end_of_image>",
    "image_token": "<image_soft_token>",
}
_GEMMA_TURN = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ m.role }}\n"
    "{% for part in m.content %}{% if part.type == 'image' %}<start_of_image>"
    "{% else %}{{ part.text | trim }}{% endif %}{% endfor %}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
_HALVES = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
_CLIP = {"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]}
_QWEN_PROCESSOR = {
    "image_processor_type": "Qwen2VLImageProcessor",
    "size": {"shortest_edge": 32 * 32, "longest_edge": 32 * 32},
    "patch_size": 8,
    "merge_size": 2,
    "temporal_patch_size": 2,
    "resample": 3,
}
_SMOL = {
    "tokens": _SMOL_TOKENS,
    "turn": _SMOL_TURN,
    "processor": {
        "image_processor_type": "Idefics3ImageProcessor",
        "size": {"longest_edge": 32},
        "max_image_size": {"longest_edge": 32},
        "do_image_splitting": False,
        "resample": 1,
        **_HALVES,
    },
    "config": {
        "scale_factor": 2,
        "vision_config": SIGLIP,
        "text_config": {"model_type": "llama", **TEXT},
    },
}
FAMILIES: dict[str, dict[str, Any]] = {
    "qwen3_vl": {
        "tokens": _QWEN_TOKENS,
        "turn": _QWEN_TURN,
        "processor": {**_QWEN_PROCESSOR, **_HALVES},
        "config": {
            "vision_config": {
                **_QWEN_VISION,
                "num_position_embeddings": 16,
                "deepstack_visual_indexes": [0],
            },
            "text_config": _QWEN_TEXT,
        },
    },
    "qwen2_5_vl": {
        "tokens": _QWEN_TOKENS,
        "turn": _QWEN_TURN,
        "processor": {**_QWEN_PROCESSOR, **_CLIP},
        "config": {
            "vision_config": {**_QWEN_VISION, "window_size": 32, "fullatt_block_indexes": [1]},
            "text_config": _QWEN_TEXT,
        },
    },
    "smolvlm": {
        **_SMOL,
        "processor": {**_SMOL["processor"], "image_processor_type": "SmolVLMImageProcessor"},
    },
    "idefics3": _SMOL,
    "paligemma": {
        "tokens": {
            "eos_token": "<eos>",
            "pad_token": "<pad>",
            "bos_token": "<bos>",
            "image_token": "<image>",
        },
        "turn": None,
        "processor": {
            "image_processor_type": "SiglipImageProcessor",
            "size": {"height": 16, "width": 16},
            "image_seq_length": 4,
            "resample": 3,
            **_HALVES,
        },
        "config": {
            "projection_dim": 32,
            "vision_config": {
                "model_type": "siglip_vision_model",
                **SIGLIP,
                "image_size": 16,
                "projection_dim": 32,
            },
            "text_config": {"model_type": "gemma", **TEXT},
        },
    },
    "gemma3": {
        "tokens": _GEMMA_TOKENS,
        "turn": _GEMMA_TURN,
        "processor": {
            "image_processor_type": "Gemma3ImageProcessor",
            "size": {"height": 32, "width": 32},
            "image_seq_length": 4,
            "do_pan_and_scan": False,
            "resample": 2,
            **_HALVES,
        },
        "config": {
            "mm_tokens_per_image": 4,
            "vision_config": SIGLIP,
            "text_config": {"model_type": "gemma3_text", **TEXT},
        },
    },
}
LANGUAGES = {
    "llama": {"model_type": "llama"},
    "qwen2": {"model_type": "qwen2", "tie_word_embeddings": True},
    "qwen3": {"model_type": "qwen3", "tie_word_embeddings": True},
    "gemma2": {"model_type": "gemma2", "sliding_window": 64},
}


def make_tokenizer(folder: Path, tokens: dict[str, str]) -> PreTrainedTokenizerFast:
    """Bytes and the family's special tokens, saved as transformers saves them."""
    Tokenizer.train(["some text"], 258).save(folder)
    backend = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    named = {n: t for n, t in tokens.items() if n in ("eos_token", "pad_token", "bos_token")}
    others = {n: t for n, t in tokens.items() if n not in named}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, extra_special_tokens=others, **named
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def make_vlm(
    folder: Path, name: str, *, seed: int = 0, max_shard_size: str = "5GB", half: bool = False
) -> Path:
    """A checkpoint of a family."""
    family = FAMILIES[name]
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer(folder, family["tokens"])

    def token(label: str) -> int | None:
        text = family["tokens"].get(label)
        return tokenizer.convert_tokens_to_ids(text) if text else None

    ids = {
        "image_token_id": token("image_token"),
        "video_token_id": token("video_token"),
        "vision_start_token_id": token("vision_bos_token"),
        "vision_end_token_id": token("vision_eos_token"),
        "boi_token_index": token("boi_token"),
        "eoi_token_index": token("eoi_token"),
    }
    stated = {label: id_ for label, id_ in ids.items() if id_ is not None}
    torch.manual_seed(seed)
    settings = AutoConfig.for_model(name, **family["config"], **stated)
    model = AutoModelForImageTextToText.from_config(settings)
    _stir(model)
    model.to(torch.bfloat16 if half else torch.float32)
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    write_json(folder / "preprocessor_config.json", family["processor"])
    if family["turn"]:
        (folder / "chat_template.jinja").write_text(family["turn"])
    return folder


def make_llm(
    folder: Path, name: str, *, seed: int = 0, max_shard_size: str = "5GB", half: bool = False
) -> Path:
    """A checkpoint of a causal language model."""
    folder.mkdir(parents=True, exist_ok=True)
    make_tokenizer(folder, {"eos_token": "<eos>", "bos_token": "<bos>"})
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**TEXT, **LANGUAGES[name]))
    _stir(model)
    model.to(torch.bfloat16 if half else torch.float32)
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    (folder / "chat_template.jinja").write_text("{{ messages[0].content }}")
    return folder


@torch.no_grad()
def _stir(model: torch.nn.Module) -> None:
    """No weight stays at zero or one, where a mistake would not show."""
    for parameter in model.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))
