"""Images to tokens: vision towers, pixel shuffle, projector.

Legend: n images, c channels, p patches, d tower width, g side of the patch grid.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from foundry_core.errors import FoundryError
from foundry_core.models.config import (
    ConvViTConfig,
    HFVisionConfig,
    ImageNormalization,
    ProjectorConfig,
    ViTConfig,
)
from foundry_core.models.interfaces import VisionTower
from foundry_core.models.layers import (
    Attention,
    GeluMLP,
    LayerNorm,
    Layers,
    compute_type,
    init_block,
    truncated_normal_,
)
from foundry_core.models.tables import constants


def normalize_images(images: Tensor, normalization: ImageNormalization) -> Tensor:
    """uint8 [n,3,H,W] → float32 (x/255 − mean)/std."""
    if images.dtype != torch.uint8:
        raise FoundryError(
            f"images are {images.dtype}, but vision towers take uint8 and normalise themselves",
            "pass the decoded pixels as they are",
        )
    shift = [-m / s for m, s in zip(normalization.mean, normalization.std, strict=True)]
    scale = [1 / (255 * s) for s in normalization.std]
    offset, factor = constants(shift + scale, images.device).view(2, 1, 3, 1, 1)
    return torch.addcmul(offset, images.to(torch.float32), factor)


def pixel_shuffle(tokens: Tensor, factor: int) -> Tensor:
    """Space-to-depth over the square token grid: [n, T, C] → [n, T/s², C·s²].

    Channels of a merged token: (row in block, column in block, channel).
    """
    if factor == 1:
        return tokens
    n, length, channels = tokens.shape
    side = round(length**0.5)
    if side * side != length:
        raise FoundryError(
            f"pixel shuffle needs a square token grid, got {length} tokens",
            "use square images and a vision tower without a class token",
        )
    if side % factor:
        raise FoundryError(
            f"pixel shuffle by {factor} needs a grid side divisible by it, got {side}×{side}"
        )
    g = side // factor
    blocks = tokens.view(n, g, factor, g, factor, channels).permute(0, 1, 3, 2, 4, 5)
    return blocks.reshape(n, g * g, factor * factor * channels)


class VisionBlock(nn.Module):
    """Pre-norm block with biases: bidirectional attention and a GELU MLP."""

    def __init__(self, dim: int, n_heads: int, mlp_dim: int, eps: float) -> None:
        super().__init__()
        self.attention_norm = LayerNorm(dim, eps)
        self.attention = Attention(dim, n_heads, bias=True)
        self.ffn_norm = LayerNorm(dim, eps)
        self.ffn = GeluMLP(dim, mlp_dim)

    def forward(self, x_npd: Tensor) -> Tensor:
        x_npd = x_npd + self.attention(self.attention_norm(x_npd))
        return x_npd + self.ffn(self.ffn_norm(x_npd))


class ConvStem(nn.Module):
    """One 5×5 and then 3×3 convolutions, stride 2 each; GroupNorm and SiLU after all but the
    last."""

    def __init__(self, config: ConvViTConfig) -> None:
        super().__init__()
        widths = (3, *config.stem_dims, config.dim)
        self.convs = Layers(
            nn.Conv2d(into, out, size, stride=2, padding=size // 2)
            for into, out, size in zip(
                widths[:-1], widths[1:], (5, *[3] * len(config.stem_dims)), strict=True
            )
        )
        self.norms = Layers(nn.GroupNorm(config.stem_groups, width) for width in config.stem_dims)

    def forward(self, x: Tensor) -> Tensor:
        for conv, norm in zip(self.convs[:-1], self.norms, strict=True):
            x = F.silu(norm(conv(x)))
        return self.convs[-1](x)


class VisionTransformer(VisionTower):
    """Native tower: patchify (one convolution, or the conv stem), positions, blocks, final norm."""

    def __init__(self, config: ViTConfig | ConvViTConfig) -> None:
        super().__init__()
        self._config = config
        if isinstance(config, ConvViTConfig):
            self.patchify: nn.Module = ConvStem(config)
        else:
            self.patchify = nn.Conv2d(3, config.dim, config.patch_size, stride=config.patch_size)
        self.positions = nn.Parameter(torch.empty(config.grid**2, config.dim))
        self.blocks = Layers(
            VisionBlock(config.dim, config.n_heads, config.hidden_dim, config.norm_eps)
            for _ in range(config.n_layers)
        )
        self.norm = LayerNorm(config.dim, config.norm_eps)
        self.init_weights()

    def init_weights(self) -> None:
        truncated_normal_(self.positions, 0.02)
        for module in self.patchify.modules():
            if isinstance(module, nn.Conv2d):
                fan_in = module.weight[0].numel()
                truncated_normal_(module.weight, fan_in**-0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        for layer, block in enumerate(self.blocks):
            init_block(block.attention, block.ffn, self.config.dim, layer)

    @property
    def config(self) -> ViTConfig | ConvViTConfig:
        return self._config

    def forward(self, images: Tensor) -> Tensor:
        """uint8 [n,3,H,W] → [n, patches, D]. Sides other than the config's interpolate the learned
        positions (bicubic)."""
        # Loaders hand pixels over as views of [H, W, 3], and convolutions would keep that order, in
        # which bfloat16 group norms take five times as long on a CPU.
        pixels = normalize_images(images, self.config.normalization).contiguous()
        x = self.patchify(pixels)
        height, width = x.shape[-2:]
        x = x.flatten(2).transpose(1, 2) + self._positions(height, width)
        x = x.to(compute_type(x))
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def _positions(self, height: int, width: int) -> Tensor:
        g = self.config.grid
        if (height, width) == (g, g):
            return self.positions
        grid = self.positions.float().view(1, g, g, -1).permute(0, 3, 1, 2)
        grid = F.interpolate(grid, size=(height, width), mode="bicubic", antialias=True)
        return grid.flatten(2).transpose(1, 2)


class Projector(nn.Module):
    """Pixel shuffle and a linear map or MLP into the language model's width."""

    def __init__(self, config: ProjectorConfig, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.factor = config.pixel_shuffle
        in_dim *= self.factor**2
        hidden = config.hidden_dim or out_dim
        dims = (in_dim, out_dim) if config.kind == "linear" else (in_dim, hidden, out_dim)
        self.layers = Layers(nn.Linear(a, b, bias=config.bias) for a, b in pairwise(dims))
        self.init_weights()

    def init_weights(self) -> None:
        for layer in self.layers:
            truncated_normal_(layer.weight, layer.in_features**-0.5)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, patches: Tensor) -> Tensor:
        """[n, patches, D_vision] → [n, patches/s², D_language]."""
        x = self.layers[0](pixel_shuffle(patches, self.factor))
        for layer in self.layers[1:]:
            x = layer(F.gelu(x, approximate="tanh"))
        return x


def build_vision(config: ViTConfig | ConvViTConfig | HFVisionConfig) -> VisionTower:
    """With fresh weights, or those that a transformers config names."""
    if isinstance(config, HFVisionConfig):
        from foundry_core.models.huggingface.vision import HFVision

        return HFVision(config)
    return VisionTransformer(config)
