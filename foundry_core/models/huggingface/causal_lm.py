"""Native language models as transformers' and back, with equal logits.

| native           | transformers        |
|------------------|---------------------|
| norm rms         | LlamaForCausalLM    |
| norm rms, qk_norm | Qwen3ForCausalLM   |
| norm layer       | StableLmForCausalLM |
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen3Config,
    StableLmConfig,
)

from foundry_core.errors import FoundryError
from foundry_core.models.config.language import HFLanguageConfig, TransformerConfig
from foundry_core.models.huggingface.load import load_or_build
from foundry_core.models.transformer import Transformer


def import_causal_lm(source: str, revision: str | None = None) -> Transformer:
    """A Llama, Qwen3 or StableLM checkpoint (directory or hub name) as a native transformer."""
    settings = HFLanguageConfig(source=source, revision=revision)
    return from_causal_lm(load_or_build(AutoModelForCausalLM, settings))


def to_causal_lm(model: Transformer) -> PreTrainedModel:
    """The same function as a transformers model; a config without counterpart raises."""
    settings = causal_lm_config(model.config)
    with torch.device("meta"):
        exported = AutoModelForCausalLM.from_config(settings)
    return filled(exported, settings, dict(language_weights(model, "model.")))


def from_causal_lm(model: PreTrainedModel) -> Transformer:
    """A native transformer with the weights of a Llama, Qwen3 or StableLM model."""
    native = Transformer(_native_config(model.config))
    source = model.state_dict()
    with torch.no_grad():
        for name, target in language_weights(native, "model."):
            # The fused matrices are viewed part by part: filling the parts fills the whole.
            target.copy_(source[name])
    return native


def causal_lm_config(config: TransformerConfig) -> PreTrainedConfig:
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


def _native_config(settings: Any) -> TransformerConfig:
    kind = settings.model_type
    if kind not in ("llama", "qwen3", "stablelm"):
        raise FoundryError(
            f"model_type {kind!r} has no native counterpart (llama, qwen3, stablelm do)",
            "use it as it is: language: {kind: hf_causal_lm, source: ...}",
        )
    rope = settings.rope_parameters
    unsupported = {
        "rope_type": rope["rope_type"] != "default",
        "partial_rotary_factor": rope.get("partial_rotary_factor", 1.0) != 1.0,
        "attention_bias": getattr(settings, "attention_bias", False),
        "mlp_bias": getattr(settings, "mlp_bias", False),
        "use_qkv_bias": getattr(settings, "use_qkv_bias", False),
        "qk_layernorm": getattr(settings, "qk_layernorm", False),
        "use_parallel_residual": getattr(settings, "use_parallel_residual", False),
        "sliding_window": getattr(settings, "use_sliding_window", False),
        "hidden_act": settings.hidden_act != "silu",
    }
    found = [name for name, wrong in unsupported.items() if wrong]
    if found:
        raise FoundryError(
            f"this {kind} checkpoint uses {', '.join(found)}, which the native model lacks",
            "use it as it is: language: {kind: hf_causal_lm, source: ...}",
        )
    layer = kind == "stablelm"
    return TransformerConfig(
        vocab_size=settings.vocab_size,
        dim=settings.hidden_size,
        n_layers=settings.num_hidden_layers,
        n_heads=settings.num_attention_heads,
        n_kv_heads=settings.num_key_value_heads,
        head_dim=getattr(settings, "head_dim", None),
        ffn_dim=settings.intermediate_size,
        norm="layer" if layer else "rms",
        norm_eps=settings.layer_norm_eps if layer else settings.rms_norm_eps,
        qk_norm=kind == "qwen3",
        rope_theta=rope["rope_theta"],
        tie_embeddings=settings.tie_word_embeddings,
        context=settings.max_position_embeddings,
    )


def language_weights(model: Transformer, prefix: str) -> Iterator[tuple[str, Tensor]]:
    """(transformers name, view into the native weight) of every weight."""
    config = model.config
    yield f"{prefix}embed_tokens.weight", model.embedding.weight
    yield from norm_weights(f"{prefix}norm", model.norm)
    head = model.embedding if model.head is None else model.head
    yield "lm_head.weight", head.weight
    sizes = [n * config.key_dim for n in (config.n_heads, config.kv_heads, config.kv_heads)]
    for i, block in enumerate(model.blocks):
        layer = f"{prefix}layers.{i}."
        yield from norm_weights(f"{layer}input_layernorm", block.attention_norm)
        yield from norm_weights(f"{layer}post_attention_layernorm", block.ffn_norm)
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


def norm_weights(name: str, norm: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """(transformers name, weight) of a norm: weight, and bias where it has one."""
    for kind, parameter in norm.named_parameters():
        yield f"{name}.{kind}", parameter


def filled(shell: PreTrainedModel, settings: Any, weights: Mapping[str, Tensor]) -> PreTrainedModel:
    """A real model of the shell's class with exactly these weights."""
    expected = set(shell.state_dict())
    if expected != set(weights):
        raise RuntimeError(f"conversion is incomplete: {sorted(expected ^ set(weights))[:5]}")
    model = type(shell)(settings)
    model.load_state_dict({name: w.detach().clone() for name, w in weights.items()})
    return model.eval()
