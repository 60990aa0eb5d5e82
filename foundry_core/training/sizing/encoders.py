"""Encoders without a language model, as parts. Only towers that are not native transformers need
torch."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from foundry_core.models.config import (
    ConvViTConfig,
    EncoderConfig,
    TransformerConfig,
    VisionConfig,
    ViTConfig,
)
from foundry_core.models.sizes import required
from foundry_core.training.sizing.parts import (
    Part,
    Pass,
    language_part,
    vision_part,
)
from foundry_core.training.sizing.shapes import FP32, Bytes
from foundry_core.training.sizing.workload import Rows

if TYPE_CHECKING:
    from torch import nn

    from foundry_core.models.config import HFTextConfig


@dataclass(frozen=True, kw_only=True)
class _JoinedPart(Part):
    """What brings towers to one width. tokens: of an image; pooled: they are a mean."""

    tokens: int
    vision: int
    text: int
    width: int

    def passed(self, rows: Rows, size: Bytes) -> Pass:
        seen = rows.images * self.tokens * self.vision
        linear = 2.0 * self.width * (seen + self.text)
        return Pass(linear=linear, entry=linear, rest=size.product * (seen + self.text))


@dataclass(frozen=True, kw_only=True)
class _MeasuredVision(Part):
    """A tower whose shapes torch counted. flops, kept: of an image's forward pass; leaf: of flops,
    what works on pixels; kept in float32."""

    flops: float
    leaf: float
    kept: float

    def passed(self, rows: Rows, size: Bytes) -> Pass:
        kept = self.kept * size.product / FP32
        return Pass(linear=self.flops, leaf=self.leaf, rest=kept, block=kept).times(rows.images)


@dataclass(frozen=True, kw_only=True)
class _WordsPart(Part):
    """A text tower of transformers. products: elements of its linears, of all layers; kept: numbers
    per position, of all layers."""

    products: int
    kept: int

    def passed(self, rows: Rows, size: Bytes) -> Pass:
        positions = rows.positions
        return Pass(
            linear=2.0 * positions * self.products, rest=float(positions * self.kept * size.product)
        )


def encoder_parts(config: EncoderConfig, place: str) -> list[Part]:
    """In the order in which data pass through."""
    prefix = f"{place}." if place else ""
    images = required(config, "images", config.images)
    words = _words(config.text, f"{prefix}text") if config.text else None
    text = _text_width(config)
    own = (config.vision.width + 1) * config.width + images * config.width
    own += (text + 1) * config.width if text else config.width
    joined = _JoinedPart(
        name="projector",
        place=f"{prefix}joined",
        own=own,
        tokens=1 if config.pool == "mean" else config.vision.grid**2,
        vision=config.vision.width,
        text=text,
        width=config.width,
    )
    tower = _vision(config.vision, f"{prefix}vision")
    return [*([words] if words else []), tower, joined]


def condition_tokens(config: EncoderConfig) -> int:
    """What a head reads: one for the words, and of each image its patches or their mean."""
    each = 1 if config.pool == "mean" else config.vision.grid**2
    return 1 + required(config, "images", config.images) * each


def _vision(config: VisionConfig, place: str) -> Part:
    if isinstance(config, ViTConfig | ConvViTConfig):
        return vision_part(config, place)
    import torch

    from foundry_core.models.vision import build_vision
    from foundry_core.training.sizing.measured import kept_on_meta

    with torch.device("meta"):
        tower = build_vision(config)
    side = config.image_size
    picture = torch.zeros(1, 3, side, side, dtype=torch.uint8, device="meta")
    flops, first, kept = kept_on_meta(tower, picture)
    return _MeasuredVision(
        name="vision", place=place, own=_elements(tower), flops=flops, leaf=first, kept=kept
    )


def _words(config: "TransformerConfig | HFTextConfig", place: str) -> Part:
    if isinstance(config, TransformerConfig):
        return replace(language_part(config, f"{place}.decoder"), place=place)
    import torch
    from torch import nn

    from foundry_core.models.encoder import build_text

    with torch.device("meta"):
        tower = build_text(config)
    linears = [m for m in tower.modules() if isinstance(m, nn.Linear)]
    return _WordsPart(
        name="language",
        place=place,
        own=_elements(tower),
        products=sum(m.in_features * m.out_features for m in linears),
        # What goes into each linear and comes out of it, about what norms and GELU keep, too.
        kept=sum(m.in_features + m.out_features for m in linears),
    )


def _text_width(config: EncoderConfig) -> int:
    """0 where no words are read."""
    if config.text is None:
        return 0
    if isinstance(config.text, TransformerConfig):
        return config.text.dim
    import torch

    from foundry_core.models.encoder import build_text

    with torch.device("meta"):
        return build_text(config.text).width


def _elements(module: "nn.Module") -> int:
    return sum(p.numel() for p in module.parameters())
