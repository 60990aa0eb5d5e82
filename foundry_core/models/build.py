"""Modules from configs."""

import torch
from torch import nn

from foundry_core.models.config import (
    Config,
    HFLanguageConfig,
    HFVisionConfig,
    HFVLMConfig,
    TransformerConfig,
    VLAConfig,
    VLMConfig,
)
from foundry_core.models.vla import VLA, build_backbone
from foundry_core.models.vlm import build_language


def build_model(config: Config, seed: int | None = None) -> nn.Module:
    """The module a config describes. With `seed`, initial weights are a function of it alone and
    the caller's random state is left as it was."""
    if seed is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build_model(config)
    if isinstance(config, TransformerConfig | HFLanguageConfig):
        return build_language(config)
    if isinstance(config, VLMConfig | HFVLMConfig):
        return build_backbone(config)
    if isinstance(config, VLAConfig):
        return VLA(config)
    raise TypeError(f"not a model config: {type(config).__name__}")


def is_native(config: Config) -> bool:
    """True when no part of the model is a transformers module."""
    if isinstance(config, VLAConfig):
        return is_native(config.backbone)
    if isinstance(config, VLMConfig):
        return is_native(config.language) and not isinstance(config.vision, HFVisionConfig)
    return isinstance(config, TransformerConfig)


def count_parameters(config: Config) -> int:
    """Without allocating any: the module is built on the meta device."""
    with torch.device("meta"):
        return sum(p.numel() for p in build_model(config).parameters())
