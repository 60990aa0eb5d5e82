"""Native language models as transformers' and back, with equal logits.

| native                  | transformers        |
|-------------------------|---------------------|
| norm rms                | LlamaForCausalLM    |
| norm rms, qkv_bias      | Qwen2ForCausalLM    |
| norm rms, qk_norm       | Qwen3ForCausalLM    |
| norm layer (qkv_bias)   | StableLmForCausalLM |
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
    StableLmConfig,
)

from foundry_core.errors import FoundryError
from foundry_core.files import read_json
from foundry_core.models.config import TransformerConfig
from foundry_core.models.huggingface.load import complete
from foundry_core.models.transformer import Transformer

_INDEX = "model.safetensors.index.json"


def to_causal_lm(model: Transformer) -> PreTrainedModel:
    """The same function as a transformers model; a config without counterpart raises."""
    settings = causal_lm_config(model.config)
    with torch.device("meta"):
        exported = AutoModelForCausalLM.from_config(settings)
    return filled(exported, dict(language_weights(model, "model.")))


def from_causal_lm(folder: Path, settings: Any) -> Transformer:
    """A native model with the weights in a folder of Llama, Qwen2, Qwen3 or StableLM.

    settings: its transformers config, see `native_config`. One tensor at a time is read, so that
    nothing is held twice.
    """
    with torch.device("meta"):
        native = Transformer(native_config(settings))
    native.to_empty(device="cpu")
    targets = dict(language_weights(native, "model."))
    if native.head is None:
        del targets["lm_head.weight"]
    with torch.no_grad():
        for path in _weight_files(folder):
            with safe_open(path, framework="pt") as opened:
                for name in opened.keys():  # noqa: SIM118  # no mapping
                    target = targets.pop(name, None)
                    if target is not None:
                        # The fused matrices are viewed part by part: the parts fill the whole.
                        target.copy_(_fitting(opened.get_tensor(name), target, name, path))
    if targets:
        raise FoundryError(
            f"{folder} lacks {next(iter(targets))!r} ({len(targets)} weights in all)",
            "the checkpoint is incomplete, or not the one its config.json describes",
        )
    return native


def _weight_files(folder: Path) -> list[Path]:
    index = folder / _INDEX
    if not index.is_file():
        files = [folder / "model.safetensors"]
    else:
        files = sorted({folder / name for name in read_json(index)["weight_map"].values()})
    for path in files:
        # An index is a file of others: its names must not lead out of the folder.
        if path.parent != folder or not path.is_file():
            raise FoundryError(
                f"{path} is missing", "weights are model.safetensors, or an index of such files"
            )
    return files


def _fitting(found: Tensor, target: Tensor, name: str, path: Path) -> Tensor:
    if found.shape != target.shape:
        raise FoundryError(
            f"{path}: {name} is {list(found.shape)}, its config.json asks for {list(target.shape)}",
            "the two files come from different models",
        )
    return found


def causal_lm_config(config: TransformerConfig) -> PreTrainedConfig:
    """FoundryError for an architecture without counterpart."""
    layer = config.norm == "layer"
    problems = [
        f"{name} {value}"
        for name, value in (
            ("norm_after_embedding", config.norm_after_embedding),
            ("logit_soft_cap", config.logit_soft_cap),
            ("qk_norm with norm layer", layer and config.qk_norm),
            ("qk_norm with qkv_bias", config.qkv_bias and config.qk_norm),
            (
                "head_dim ≠ dim/n_heads with norm layer",
                layer and config.key_dim * config.n_heads != config.dim,
            ),
        )
        if value
    ]
    if problems:
        raise FoundryError(
            f"this language model has no transformers counterpart: {', '.join(problems)}",
            "norm rms exports to Llama (with qk_norm: Qwen3, with qkv_bias: Qwen2), norm layer to "
            "StableLM",
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
    if layer:
        common["rope_parameters"]["partial_rotary_factor"] = 1.0
        bias = config.qkv_bias
        return StableLmConfig(**common, layer_norm_eps=config.norm_eps, use_qkv_bias=bias)
    common |= {"rms_norm_eps": config.norm_eps, "head_dim": config.key_dim}
    if config.qkv_bias:
        return Qwen2Config(**common)
    return Qwen3Config(**common) if config.qk_norm else LlamaConfig(**common)


def not_native(settings: Any) -> list[str]:
    """What a transformers config has that the native model lacks; empty: `native_config` works."""
    kind = settings.model_type
    if kind not in ("llama", "qwen2", "qwen3", "stablelm"):
        return [f"model_type {kind}"]
    rope = settings.rope_parameters
    lacking = {
        f"rope_type {rope['rope_type']}": rope["rope_type"] != "default",
        "partial_rotary_factor": rope.get("partial_rotary_factor", 1.0) != 1.0,
        "attention_bias": getattr(settings, "attention_bias", False),
        "mlp_bias": getattr(settings, "mlp_bias", False),
        "qk_layernorm": getattr(settings, "qk_layernorm", False),
        "use_parallel_residual": getattr(settings, "use_parallel_residual", False),
        "use_sliding_window": getattr(settings, "use_sliding_window", False),
        f"hidden_act {settings.hidden_act}": settings.hidden_act != "silu",
    }
    return [name for name, wrong in lacking.items() if wrong]


def native_config(settings: Any) -> TransformerConfig:
    """FoundryError for what `not_native` names."""
    lacking = not_native(settings)
    if lacking:
        raise FoundryError(
            f"this {settings.model_type} checkpoint has {', '.join(lacking)}, which the native "
            "model lacks",
            "leave it a transformers model (native: false)",
        )
    kind = settings.model_type
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
        qkv_bias=kind == "qwen2" or getattr(settings, "use_qkv_bias", False),
        rope_theta=settings.rope_parameters["rope_theta"],
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
        for kind, whole in block.attention.qkv.named_parameters():
            for name, part in zip("qkv", whole.split(sizes), strict=True):
                yield f"{layer}self_attn.{name}_proj.{kind}", part
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


def filled(shell: PreTrainedModel, weights: Mapping[str, Tensor]) -> PreTrainedModel:
    """The shell, a model on the meta device, with copies of exactly these weights."""
    expected = set(shell.state_dict())
    if expected != set(weights):
        raise RuntimeError(f"conversion is incomplete: {sorted(expected ^ set(weights))[:5]}")
    shell.load_state_dict({n: w.detach().clone() for n, w in weights.items()}, assign=True)
    complete(shell)
    return shell.eval()
