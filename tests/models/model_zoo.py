"""Models of a few thousand parameters and batches for them."""

import torch
from torch import Tensor

from foundry_core.models.build import build_model
from foundry_core.models.config import (
    ConvViTConfig,
    ProjectorConfig,
    TransformerConfig,
    VLAConfig,
    VLMConfig,
)
from foundry_core.models.heads.flow import FlowHeadConfig
from foundry_core.models.heads.networks.base import Observation, Request, Targets
from foundry_core.models.interfaces import Prompts
from foundry_core.models.noise import Key

VOCABULARY, IMAGE, OBS = 50, 48, 49
TOKENS_PER_IMAGE = 4
PLAIN = torch.arange(1, 40)


def language_config(**changes) -> TransformerConfig:
    base = {"vocab_size": VOCABULARY, "dim": 32, "n_layers": 4, "n_heads": 4, "ffn_dim": 48}
    return TransformerConfig(**(base | changes))


def vlm_config(**changes) -> VLMConfig:
    base = {
        "language": language_config(),
        "vision": ConvViTConfig(
            image_size=32, dim=16, n_layers=1, n_heads=2, stem_dims=(8, 8), stem_groups=4
        ),
        "projector": ProjectorConfig(pixel_shuffle=2),
        "image_token_id": IMAGE,
    }
    return VLMConfig(**(base | changes))


def flow_config(**changes) -> FlowHeadConfig:
    return FlowHeadConfig(**({"dim": 32, "n_layers": 2, "n_heads": 2, "ffn_dim": 32} | changes))


def vla_config(**changes) -> VLAConfig:
    base = {
        "backbone": vlm_config(),
        "horizon": 3,
        "action_dim": 5,
        "proprio_dim": 6,
        "proprio_steps": 2,
        "obs_token_id": OBS,
        "head": flow_config(),
    }
    return VLAConfig(**(base | changes))


def awake(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """The module with every zero-initialised weight made random, so that nothing is hidden."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(0.05 * noise)
    return module


def build(config, seed: int = 0) -> torch.nn.Module:
    return awake(build_model(config, seed), seed)


def count_parameters(config) -> int:
    """Without allocating any: the module is built on the meta device."""
    with torch.device("meta"):
        return sum(p.numel() for p in build_model(config).parameters())


def acting(seed, step, rows: int) -> Key:
    """What the noise of `rows` clients depends on."""
    return Key(seed, step, torch.zeros(rows, dtype=torch.int64))


def seen(condition: Tensor, proprio: Tensor | None = None) -> Observation:
    """An observation of features, whose words nobody reads."""
    tokens = torch.zeros(len(condition), 1, dtype=torch.int64)
    prompts = Prompts(tokens=tokens, lengths=torch.ones_like(tokens[:, 0]))
    return Observation(prompts=prompts, condition=condition, proprio=proprio)


def targets(actions: Tensor, mask: Tensor) -> Targets:
    return Targets(actions=actions, mask=mask)


def asked(seed, step, rows: int, mask: Tensor | None = None) -> Request:
    """What `rows` clients ask a chunk with."""
    return Request(key=acting(seed, step, rows), action_mask=mask)


def plain_tokens(batch: int, length: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, 40, (batch, length), generator=generator)


def robot_batch(
    lengths: list[int], *, images: int = 2, size: int = 32, seed: int = 0
) -> dict[str, Tensor]:
    """Rows of image placeholders, `length` words and `<obs>`, padded on the right with 0."""
    generator = torch.Generator().manual_seed(seed)
    batch, placeholders = len(lengths), images * TOKENS_PER_IMAGE
    width = placeholders + max(lengths) + 1
    tokens = torch.zeros(batch, width, dtype=torch.int64)
    mask = torch.zeros(batch, width, dtype=torch.bool)
    for row, length in enumerate(lengths):
        end = placeholders + length
        tokens[row, :placeholders] = IMAGE
        tokens[row, placeholders:end] = torch.randint(1, 40, (length,), generator=generator)
        tokens[row, end] = OBS
        mask[row, : end + 1] = True
    pixels = torch.randint(0, 256, (batch, images, 3, size, size), generator=generator)
    return {
        "images": pixels.to(torch.uint8),
        "tokens": tokens,
        "token_mask": mask,
        "proprio": torch.randn(batch, 2, 6, generator=generator),
        "actions": torch.randn(batch, 3, 5, generator=generator),
        "action_mask": torch.rand(batch, 3, 5, generator=generator) > 0.3,
        "draw_ids": torch.arange(batch) + 100,
    }
