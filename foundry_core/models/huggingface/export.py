"""Saved models as plain transformers checkpoints, with equal logits. A native language model
becomes what causal_lm.py says, a vlm of a vit and a linear projector Idefics3."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from foundry_core.errors import FoundryError
from foundry_core.files import read_json
from foundry_core.models.config import ConvViTConfig, ViTConfig
from foundry_core.models.huggingface.adapters import save_adapters, split, take_off
from foundry_core.models.huggingface.causal_lm import (
    causal_lm_config,
    filled,
    language_weights,
    norm_weights,
    to_causal_lm,
)
from foundry_core.models.huggingface.language import HFLanguage
from foundry_core.models.huggingface.load import quiet
from foundry_core.models.huggingface.vlm import HFVLM
from foundry_core.models.interfaces import Decoder
from foundry_core.models.io import load_model
from foundry_core.models.lora import drop_lora, merge_lora
from foundry_core.models.processor_files import processor_of
from foundry_core.models.sizes import kind_of
from foundry_core.models.transformer import Transformer
from foundry_core.models.vision import VisionTransformer
from foundry_core.models.vla import VLA, decoder_of
from foundry_core.models.vlm import VLM

ADAPTER = "adapter"


def export_hf(
    model_dir: Path,
    out_dir: Path,
    *,
    max_shard_size: str = "5GB",
    adapters: Literal["merged", "apart"] = "merged",
) -> None:
    """Writes a saved LLM or VLM as a transformers checkpoint folder: safetensors, tokenizer, and
    the processor and chat template that it was imported with. Of a policy its backbone. Low-rank
    adapters are folded in; apart: it is without them, and they in the folder `adapter` below, as
    peft reads them. FoundryError for adapters that there are none of."""
    model, config = load_model(model_dir)
    if adapters == "apart":
        _export_adapters(Path(model_dir), Path(out_dir) / ADAPTER)
    if isinstance(model, VLA):
        model = decoder_of(model.backbone)
    if isinstance(model, Decoder):
        (merge_lora if adapters == "merged" else drop_lora)(model)
    if isinstance(model, Transformer):
        exported = to_causal_lm(model)
    elif isinstance(model, VLM):
        exported = to_idefics3(model)
    elif isinstance(model, HFLanguage | HFVLM):
        exported = model.model
    else:
        raise FoundryError(
            f"{model_dir} is a {kind_of(config)}, transformers has no architecture for it",
            "export the language model or the vision-language model it was made from",
        )
    with quiet():
        exported.save_pretrained(out_dir, max_shard_size=max_shard_size)
    _export_tokenizer(Path(model_dir), Path(out_dir))


def _export_adapters(model_dir: Path, folder: Path) -> None:
    """In peft's format, by the names that `export_hf` gives a model, or a policy's backbone."""
    model, _ = load_model(model_dir)
    decoder = model.backbone if isinstance(model, VLA) else model
    lora = decoder.lora if isinstance(decoder, Decoder) else None
    if lora is None:
        raise FoundryError(
            f"{model_dir} has no low-rank adapters", "export it with adapters merged, as it is"
        )
    found = take_off(decoder)
    if isinstance(decoder, VLM):
        named = split(iter(_idefics3_weights(decoder).items()), found)
    elif isinstance(decoder, Transformer):
        named = split(language_weights(decoder, "model."), found)
    else:
        assert isinstance(decoder, HFLanguage | HFVLM)
        named = split(decoder.model.named_parameters(), found)
    save_adapters(folder, named, lora, base=None)


def _export_tokenizer(model_dir: Path, out_dir: Path) -> None:
    path, kept = model_dir / "tokenizer.json", processor_of(model_dir)
    if not path.is_file():
        return
    if kept is not None:
        for part in kept.iterdir():
            shutil.copyfile(part, out_dir / part.name)
        shutil.copyfile(path, out_dir / path.name)
        return
    names = read_json(model_dir / "tokenizer_config.json")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(path), eos_token=names.get("eos"), pad_token=names.get("pad")
    )
    tokenizer.save_pretrained(out_dir)
    config = AutoConfig.from_pretrained(out_dir)
    config.eos_token_id, config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    config.save_pretrained(out_dir)


def to_idefics3(model: VLM) -> PreTrainedModel:
    """The same function as a transformers model; FoundryError for what has no counterpart."""
    vision, language = _parts(model)
    settings = Idefics3Config(
        image_token_id=model.image_token_id,
        scale_factor=model.projector.factor,
        tie_word_embeddings=language.config.tie_embeddings,
        text_config=causal_lm_config(language.config).to_dict(),
        vision_config=_vision_config(vision.config),
    )
    with torch.device("meta"):
        exported = Idefics3ForConditionalGeneration(settings)
    return filled(exported, _idefics3_weights(model))


def _idefics3_weights(model: VLM) -> dict[str, Tensor]:
    """Views into the native weights, by transformers' names."""
    vision, language = _parts(model)
    (projection,) = model.projector.layers
    return {
        **dict(language_weights(language, "model.text_model.")),
        **dict(_vision_weights(vision, "model.vision_model.")),
        "model.connector.modality_projection.proj.weight": projection.weight,
    }


def _parts(model: VLM) -> tuple[VisionTransformer, Transformer]:
    """What is converted: a vit and a native decoder."""
    vision, language, projector = model.vision, model.language, model.config.projector
    refused = [
        reason
        for reason, wrong in (
            (f"vision {vision.config.kind}", not isinstance(vision.config, ViTConfig)),
            (f"projector {projector.kind}", projector.kind != "linear"),
            ("projector.bias", projector.bias),
            ("image_attention bidirectional", model.config.image_attention != "causal"),
            ("a transformers language model", not isinstance(language, Transformer)),
        )
        if wrong
    ]
    if isinstance(vision, VisionTransformer) and isinstance(language, Transformer) and not refused:
        return vision, language
    raise FoundryError(
        f"this VLM has no transformers counterpart: {', '.join(refused)}",
        "Idefics3 is vit + linear projector without bias + causal native language model",
    )


def _vision_config(config: ViTConfig | ConvViTConfig) -> dict[str, int | float | str]:
    assert isinstance(config, ViTConfig)  # _parts refuses others
    return {
        "hidden_size": config.dim,
        "intermediate_size": config.hidden_dim,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "image_size": config.image_size,
        "patch_size": config.patch_size,
        "layer_norm_eps": config.norm_eps,
        "hidden_act": "gelu_pytorch_tanh",
    }


def _vision_weights(model: VisionTransformer, prefix: str) -> Iterator[tuple[str, Tensor]]:
    for kind, parameter in model.patchify.named_parameters():
        yield f"{prefix}embeddings.patch_embedding.{kind}", parameter
    yield f"{prefix}embeddings.position_embedding.weight", model.positions
    yield from norm_weights(f"{prefix}post_layernorm", model.norm)
    for i, block in enumerate(model.blocks):
        layer = f"{prefix}encoder.layers.{i}."
        yield from norm_weights(f"{layer}layer_norm1", block.attention_norm)
        yield from norm_weights(f"{layer}layer_norm2", block.ffn_norm)
        for kind in ("weight", "bias"):
            parts = getattr(block.attention.qkv, kind).chunk(3)
            for name, part in zip("qkv", parts, strict=True):
                yield f"{layer}self_attn.{name}_proj.{kind}", part
            yield f"{layer}self_attn.out_proj.{kind}", getattr(block.attention.out, kind)
            yield f"{layer}mlp.fc1.{kind}", getattr(block.ffn.up, kind)
            yield f"{layer}mlp.fc2.{kind}", getattr(block.ffn.down, kind)
