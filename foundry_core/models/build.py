"""Modules from configs."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from foundry_core.errors import FoundryError
from foundry_core.models.config import (
    EncoderConfig,
    HFLanguageConfig,
    HFTextConfig,
    HFVisionConfig,
    HFVLMConfig,
    TransformerConfig,
    VLAConfig,
    VLMConfig,
)
from foundry_core.models.interfaces import LanguageModel, Observer
from foundry_core.models.sizes import kind_of
from foundry_core.models.vla import VLA, build_backbone
from foundry_core.models.vlm import build_language
from foundry_core.pipeline.stage import Config

Model = LanguageModel | Observer | VLA


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """New weights are a function of the seed; the caller's random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def build_model(config: Config, seed: int | None = None) -> Model:
    """The module a config describes, with `seed` as within `seeded`."""
    if seed is not None:
        with seeded(seed):
            return build_model(config)
    if isinstance(config, TransformerConfig | HFLanguageConfig):
        return build_language(config)
    if isinstance(config, VLMConfig | HFVLMConfig | EncoderConfig):
        return build_backbone(config)
    if isinstance(config, VLAConfig):
        return VLA(config)
    raise FoundryError(
        f"{kind_of(config)!r} is no model of its own", "give a language model, vlm or vla"
    )


def is_native(config: Config | None) -> bool:
    """True when no part of the model is a transformers module."""
    if isinstance(config, VLAConfig):
        return is_native(config.backbone)
    if isinstance(config, EncoderConfig):
        towers = HFVisionConfig | HFTextConfig
        return not isinstance(config.vision, towers) and not isinstance(config.text, towers)
    if isinstance(config, VLMConfig):
        return is_native(config.language) and not isinstance(config.vision, HFVisionConfig)
    return isinstance(config, TransformerConfig)
