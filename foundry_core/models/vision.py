"""Images to tokens: vision towers, pixel shuffle, projector.

Legend: n images, c channels, p patches, d tower width, g side of the patch grid.
"""

import functools
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
    ResNetConfig,
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


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions beside the identity, or beside a 1×1 one where the shape changes."""

    def __init__(self, into: int, out: int, stride: int, groups: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(into, out, 3, stride=stride, padding=1, bias=False)
        self.first_norm = nn.GroupNorm(groups, out)
        self.second = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.second_norm = nn.GroupNorm(groups, out)
        changes = stride != 1 or into != out
        self.shortcut = nn.Conv2d(into, out, 1, stride=stride, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.first_norm(self.first(x)))
        y = self.second_norm(self.second(y))
        return F.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class ResNet(VisionTower):
    """Native residual network: stem, stages, positions."""

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self._config = config
        self.stem = nn.Conv2d(3, config.dim, 7, stride=2, padding=3, bias=False)
        self.stem_norm = nn.GroupNorm(config.groups, config.dim)
        blocks, into = [], config.dim
        for stage, count in enumerate(config.stages):
            out = config.dim * 2**stage
            for number in range(count):
                stride = 2 if stage and not number else 1
                blocks.append(ResidualBlock(into, out, stride, config.groups))
                into = out
        self.blocks = Layers(blocks)
        self.init_weights()

    def init_weights(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for block in self.blocks:
            # Each block starts as the identity (Goyal et al. 2017).
            nn.init.zeros_(block.second_norm.weight)

    @property
    def config(self) -> ResNetConfig:
        return self._config

    def forward(self, images: Tensor) -> Tensor:
        """uint8 [n,3,H,W] → [n, g², D]."""
        pixels = normalize_images(images, self.config.normalization).contiguous()
        x = F.max_pool2d(F.relu(self.stem_norm(self.stem(pixels))), 3, stride=2, padding=1)
        for block in self.blocks:
            x = block(x)
        height, width = x.shape[-2:]
        x = x.flatten(2).transpose(1, 2)
        return x + sinusoids(height, width, x.shape[-1], str(x.device)).to(x.dtype)


@functools.lru_cache(maxsize=8)
def sinusoids(height: int, width: int, dim: int, device: str) -> Tensor:
    """float32 [height·width, dim]: of the row in the first half, of the column in the second, each
    as sines and cosines of the position over 10000^(2i/(dim/2)). Do not write into it."""
    with torch.inference_mode(False):  # else training could not save it for its backward pass
        powers = torch.arange(0, dim // 2, 2, device=device) / (dim // 2)
        waves = []
        for count in (height, width):
            angles = torch.arange(count, device=device)[:, None] * 10000.0**-powers
            waves.append(torch.cat((angles.sin(), angles.cos()), dim=-1))
        rows, columns = waves
        found = torch.cat(
            (rows[:, None].expand(-1, width, -1), columns.expand(height, -1, -1)), dim=-1
        )
        return found.flatten(0, 1)


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


def build_vision(config: ViTConfig | ConvViTConfig | ResNetConfig | HFVisionConfig) -> VisionTower:
    """With fresh weights, or those that a transformers config names."""
    if isinstance(config, HFVisionConfig):
        from foundry_core.models.huggingface.vision import HFVision

        return HFVision(config)
    if isinstance(config, ResNetConfig):
        return ResNet(config)
    return VisionTransformer(config)
