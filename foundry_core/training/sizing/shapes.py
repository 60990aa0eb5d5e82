"""The arithmetic of one transformer block: its parameters, the bytes it keeps for the backward
pass, its FLOPs. No torch.

Kept bytes are those of uncompiled code with flash attention, counted by storage: a view keeps all
that it looks into. Compiled blocks keep less.

Legend: D width, H heads, G key/value heads, Q their width, F feed-forward width, T positions.
"""

from dataclasses import dataclass
from typing import Literal

from foundry_core.models.config import ConvViTConfig, TransformerConfig, ViTConfig
from foundry_core.models.heads.base import KeyValueShape, TransformerHeadConfig

Precision = Literal["fp32", "bf16", "bf16_weights"]
FP32 = 4


@dataclass(frozen=True, kw_only=True)
class Bytes:
    """Of one number: of products' operands, which the streams of our language models and vision
    towers are, too, and of the residual stream of action heads and transformers' models."""

    product: int
    residual: int

    @classmethod
    def of(cls, precision: Precision) -> "Bytes":
        return cls(
            product=FP32 if precision == "fp32" else 2,
            residual=2 if precision == "bf16_weights" else FP32,
        )


@dataclass(frozen=True, kw_only=True)
class BlockShape:
    """One block. bias: of all its linears; qkv_bias: of q, k and v alone. rope: q and k are rotated
    into copies. modulated: shifts, scales and gates of AdaLN."""

    dim: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    gated: bool
    norm: Literal["layer", "rms"]
    bias: bool = False
    qkv_bias: bool = False
    qk_norm: bool = False
    rope: bool = False
    modulated: bool = False

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """Name → (in, out) of each linear, as layers.py calls them."""
        found = {
            "qkv": (self.dim, self._qkv),
            "out": (self.heads * self.head_dim, self.dim),
            "gate_up" if self.gated else "up": (self.dim, self.ffn * (2 if self.gated else 1)),
            "down": (self.ffn, self.dim),
        }
        if self.modulated:
            found["modulation"] = (self.dim, 6 * self.dim)
        return found

    @property
    def norm_parameters(self) -> int:
        """Of one norm over its width."""
        return self.dim * (2 if self.norm == "layer" else 1)

    @property
    def parameters(self) -> int:
        """Of the block."""
        found = sum(into * out for into, out in self.linears.values())
        found += 2 * self.norm_parameters
        if self.bias:
            found += sum(out for _, out in self.linears.values())
        elif self.qkv_bias:
            found += self._qkv
        if self.qk_norm:
            found += 2 * self.head_dim * (2 if self.norm == "layer" else 1)
        if self.modulated:
            found += 6 * self.dim
        return found

    def kept(self, size: Bytes) -> int:
        """Bytes per position."""
        return self.kept_by_attention(size) + self._kept_by_ffn(size)

    def kept_by_attention(self, size: Bytes) -> int:
        """Of a block whose feed-forward runs at next to no position, as the last one under a tap:
        its norm's input, the input of q/k/v, these, their rotated copies, and the output."""
        rotated = size.product * (self.heads + self.kv_heads) * self.head_dim
        found = self._kept_before(size) + size.product * self._qkv
        if self.qk_norm:
            # In float32: a copy where they are not, and the statistics of each head.
            copies = FP32 if size.product < FP32 else 0
            found += copies * (self.heads + self.kv_heads) * self.head_dim
            found += self._statistics * (self.heads + self.kv_heads)
        if self.rope:
            found += rotated
        output = size.product * self.heads * self.head_dim + FP32 * self.heads
        return found + output

    def linear_flops(self, positions: int, outputs: int | None = None) -> float:
        """Of the products in a row's forward pass. outputs: positions whose output is asked for;
        null: all."""
        outputs = positions if outputs is None else outputs
        return 2.0 * (positions * self._attention + outputs * (self._out + self._ffn))

    def key_flops(self, positions: int) -> float:
        """Of the product that makes queries, keys and values of a row."""
        return 2.0 * positions * self._attention

    def score_flops(self, positions: int) -> float:
        """Of a row's attention, as if nothing were masked."""
        return 4.0 * self.heads * self.head_dim * positions**2

    def modulation_flops(self) -> float:
        """Of one time embedding."""
        return 2.0 * self._modulation

    @property
    def kept_by_norm(self) -> int:
        """Bytes per position of a norm: its input in float32, and its statistics."""
        return FP32 * self.dim + self._statistics

    def _kept_by_ffn(self, size: Bytes) -> int:
        # Gated: gate and up, silu(gate), their product. Else: GELU's input and output.
        return self._kept_before(size) + size.product * self.ffn * (4 if self.gated else 2)

    def _kept_before(self, size: Bytes) -> int:
        """By the norm in front of a linear, and by that of its output; of a modulated one what is
        scaled after the norm, and what is gated."""
        modulation = 2 * size.residual * self.dim if self.modulated else 0
        return self.kept_by_norm + size.product * self.dim + modulation

    @property
    def _statistics(self) -> int:
        return FP32 * (2 if self.norm == "layer" else 1)

    @property
    def _qkv(self) -> int:
        return (self.heads + 2 * self.kv_heads) * self.head_dim

    @property
    def _attention(self) -> int:
        return self.dim * self._qkv

    @property
    def _out(self) -> int:
        return self.heads * self.head_dim * self.dim

    @property
    def _ffn(self) -> int:
        return (3 if self.gated else 2) * self.dim * self.ffn

    @property
    def _modulation(self) -> int:
        return 6 * self.dim**2 if self.modulated else 0


def language_block(config: TransformerConfig) -> BlockShape:
    return BlockShape(
        dim=config.dim,
        heads=config.n_heads,
        kv_heads=config.kv_heads,
        head_dim=config.key_dim,
        ffn=config.hidden_dim,
        gated=True,
        norm=config.norm,
        qkv_bias=config.qkv_bias,
        qk_norm=config.qk_norm,
        rope=True,
    )


def vision_block(config: ViTConfig | ConvViTConfig) -> BlockShape:
    return BlockShape(
        dim=config.dim,
        heads=config.n_heads,
        kv_heads=config.n_heads,
        head_dim=config.dim // config.n_heads,
        ffn=config.hidden_dim,
        gated=False,
        norm="layer",
        bias=True,
    )


def head_block(
    config: TransformerHeadConfig, *, modulated: bool, keys: KeyValueShape | None = None
) -> BlockShape:
    """keys: of the decoder that an expert attends to."""
    return BlockShape(
        dim=config.dim,
        heads=config.n_heads,
        kv_heads=keys.heads if keys else config.n_heads,
        head_dim=keys.dim if keys else config.dim // config.n_heads,
        rope=keys is not None,
        ffn=config.hidden_dim,
        gated=True,
        norm=config.norm,
        modulated=modulated,
    )
