"""Saved models as plain transformers checkpoints, with equal logits.

| native              | transformers                     |
|---------------------|----------------------------------|
| norm rms            | LlamaForCausalLM                 |
| norm rms, qk_norm   | Qwen3ForCausalLM                 |
| norm layer          | StableLmForCausalLM              |
| vlm of a vit, linear projector | Idefics3ForConditionalGeneration |
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    StableLmConfig,
)

from foundry_core.errors import FoundryError
from foundry_core.files import read_json
from foundry_core.models.config import ConvViTConfig, TransformerConfig, ViTConfig
from foundry_core.models.huggingface.language import HFLanguage
from foundry_core.models.huggingface.vlm import HFVLM
from foundry_core.models.io import load_model
from foundry_core.models.sizes import kind_of
from foundry_core.models.transformer import Transformer
from foundry_core.models.vision import VisionTransformer
from foundry_core.models.vlm import VLM


def export_hf(model_dir: Path, out_dir: Path) -> None:
    """Writes a saved LLM or VLM as a transformers checkpoint directory, its tokenizer included."""
    model, config = load_model(model_dir)
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
    exported.save_pretrained(out_dir, safe_serialization=True)
    _export_tokenizer(Path(model_dir), Path(out_dir))


def _export_tokenizer(model_dir: Path, out_dir: Path) -> None:
    path = model_dir / "tokenizer.json"
    if not path.is_file():
        return
    names = read_json(model_dir / "tokenizer_config.json")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(path), eos_token=names.get("eos"), pad_token=names.get("pad")
    )
    tokenizer.save_pretrained(out_dir)
    config = AutoConfig.from_pretrained(out_dir)
    config.eos_token_id, config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    config.save_pretrained(out_dir)


def to_causal_lm(model: Transformer) -> PreTrainedModel:
    """The same function as a transformers model; a config without counterpart raises."""
    settings = _causal_lm_config(model.config)
    with torch.device("meta"):
        exported = AutoModelForCausalLM.from_config(settings)
    return _filled(exported, settings, dict(_language_weights(model, "model.")))


def _causal_lm_config(config: TransformerConfig) -> PreTrainedConfig:
    """FoundryError for an architecture without counterpart."""
    problems = [
        f"{name} {value}"
        for name, value in (
            ("norm_after_embedding", config.norm_after_embedding),
            ("logit_soft_cap", config.logit_soft_cap),
            ("qk_norm with norm layer", config.norm == "layer" and config.qk_norm),
            (
                "head_dim ≠ dim/n_heads with norm layer",
                config.norm == "layer" and config.key_dim * config.n_heads != config.dim,
            ),
        )
        if value
    ]
    if problems:
        raise FoundryError(
            f"this language model has no transformers counterpart: {', '.join(problems)}",
            "norm rms exports to Llama (with qk_norm: Qwen3), norm layer to StableLM",
        )
    common: dict[str, Any] = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.dim,
        "intermediate_size": config.hidden_dim,
        "num_hidden_layers": config.n_layers,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.kv_heads,
        "max_position_embeddings": config.context,
        "tie_word_embeddings": config.tie_embeddings,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "bos_token_id": None,
        "eos_token_id": None,
    }
    if config.norm == "layer":
        common["rope_parameters"]["partial_rotary_factor"] = 1.0
        return StableLmConfig(**common, layer_norm_eps=config.norm_eps, use_qkv_bias=False)
    common |= {"rms_norm_eps": config.norm_eps, "head_dim": config.key_dim}
    return Qwen3Config(**common) if config.qk_norm else LlamaConfig(**common)


def _language_weights(model: Transformer, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """(transformers name, view into the native weight) of every weight."""
    config = model.config
    yield f"{prefix}embed_tokens.weight", model.embedding.weight
    yield from _norm_weights(f"{prefix}norm", model.norm)
    head = model.embedding if model.head is None else model.head
    yield "lm_head.weight", head.weight
    sizes = [n * config.key_dim for n in (config.n_heads, config.kv_heads, config.kv_heads)]
    for i, block in enumerate(model.blocks):
        layer = f"{prefix}layers.{i}."
        yield from _norm_weights(f"{layer}input_layernorm", block.attention_norm)
        yield from _norm_weights(f"{layer}post_attention_layernorm", block.ffn_norm)
        parts = block.attention.qkv.weight.split(sizes)
        for name, part in zip("qkv", parts, strict=True):
            yield f"{layer}self_attn.{name}_proj.weight", part
        yield f"{layer}self_attn.o_proj.weight", block.attention.out.weight
        if block.attention.q_norm is not None and block.attention.k_norm is not None:
            yield f"{layer}self_attn.q_norm.weight", block.attention.q_norm.weight
            yield f"{layer}self_attn.k_norm.weight", block.attention.k_norm.weight
        gate, up = block.ffn.gate_up.weight.chunk(2)
        yield f"{layer}mlp.gate_proj.weight", gate
        yield f"{layer}mlp.up_proj.weight", up
        yield f"{layer}mlp.down_proj.weight", block.ffn.down.weight


def _norm_weights(name: str, norm: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """(transformers name, weight) of a norm: weight, and bias where it has one."""
    for kind, parameter in norm.named_parameters():
        yield f"{name}.{kind}", parameter


def _filled(shell: PreTrainedModel, settings: Any, weights: dict[str, Tensor]) -> PreTrainedModel:
    """A real model of the shell's class with exactly these weights."""
    expected = set(shell.state_dict())
    if expected != set(weights):
        raise RuntimeError(f"conversion is incomplete: {sorted(expected ^ set(weights))[:5]}")
    model = type(shell)(settings)
    model.load_state_dict({name: w.detach().clone() for name, w in weights.items()})
    return model.eval()


def to_idefics3(model: VLM) -> PreTrainedModel:
    """The same function as a transformers model; FoundryError for what has no counterpart."""
    vision, language = _parts(model)
    settings = Idefics3Config(
        image_token_id=model.image_token_id,
        scale_factor=model.projector.factor,
        tie_word_embeddings=language.config.tie_embeddings,
        text_config=_causal_lm_config(language.config).to_dict(),
        vision_config=_vision_config(vision.config),
    )
    with torch.device("meta"):
        exported = Idefics3ForConditionalGeneration(settings)
    (projection,) = model.projector.layers
    weights = {
        **dict(_language_weights(language, "model.text_model.")),
        **dict(_vision_weights(vision, "model.vision_model.")),
        "model.connector.modality_projection.proj.weight": projection.weight,
    }
    return _filled(exported, settings, weights)


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
    yield from _norm_weights(f"{prefix}post_layernorm", model.norm)
    for i, block in enumerate(model.blocks):
        layer = f"{prefix}encoder.layers.{i}."
        yield from _norm_weights(f"{layer}layer_norm1", block.attention_norm)
        yield from _norm_weights(f"{layer}layer_norm2", block.ffn_norm)
        for kind in ("weight", "bias"):
            parts = getattr(block.attention.qkv, kind).chunk(3)
            for name, part in zip("qkv", parts, strict=True):
                yield f"{layer}self_attn.{name}_proj.{kind}", part
            yield f"{layer}self_attn.out_proj.{kind}", getattr(block.attention.out, kind)
            yield f"{layer}mlp.fc1.{kind}", getattr(block.ffn.up, kind)
            yield f"{layer}mlp.fc2.{kind}", getattr(block.ffn.down, kind)
