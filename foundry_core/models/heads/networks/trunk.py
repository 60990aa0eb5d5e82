"""The transformer that every action head shares: one bidirectional sequence of
[condition tokens; proprio tokens; K action tokens], all projected to the head's width.

Legend: b batch, c condition tokens, s proprio steps, k horizon, d head width.
"""

import math
from collections.abc import Iterable
from typing import Unpack

import torch
from torch import Tensor, nn

from foundry_core.models.heads.base import HeadSizes, TransformerHeadConfig
from foundry_core.models.heads.networks.base import Observation
from foundry_core.models.layers import (
    Attention,
    AttentionMask,
    Layers,
    LookUp,
    SwiGLU,
    init_block,
    make_norm,
    truncated_normal_,
)


class TimeEmbedding(nn.Module):
    """t in [0, 1] → d/2 sinusoids (periods 4 down to 0.004) and cosines → MLP → [b, d]."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.sinusoids = dim // 2
        self.up = nn.Linear(2 * self.sinusoids, 4 * dim)
        self.down = nn.Linear(4 * dim, dim)

    def forward(self, times: Tensor) -> Tensor:
        powers = torch.arange(self.sinusoids, device=times.device) / (self.sinusoids - 1)
        angles = times.float()[:, None] * (math.tau / 4.0 * 1000.0**powers)
        waves = torch.cat((angles.sin(), angles.cos()), dim=-1)
        return self.down(nn.functional.silu(self.up(waves)))


class HeadBlock(nn.Module):
    """Pre-norm block; with `modulated`, time shifts and scales both norms and gates both residuals
    (AdaLN, starting as the identity modulation)."""

    def __init__(
        self, config: TransformerHeadConfig, modulated: bool, attention: Attention | None = None
    ) -> None:
        super().__init__()
        dim = config.dim
        self.attention_norm = make_norm(config.norm, dim, config.norm_eps)
        self.attention = attention or Attention(dim, config.n_heads)
        self.ffn_norm = make_norm(config.norm, dim, config.norm_eps)
        self.ffn = SwiGLU(dim, config.hidden_dim)
        self.modulation = nn.Linear(dim, 6 * dim) if modulated else None

    def forward(
        self,
        x: Tensor,
        time_bmd: Tensor | None,
        mask: AttentionMask | None = None,
        rope: tuple[Tensor, Tensor] | None = None,
        look: LookUp | None = None,
    ) -> Tensor:
        """x [b,t,d]; time_bmd [b,m,d]: of m equal parts of the sequence. The rest is
        Attention's."""

        def attention(y: Tensor) -> Tensor:
            found: Tensor = self.attention(y, mask=mask, rope=rope, look=look)
            return found

        if self.modulation is None or time_bmd is None:
            x = x + attention(self.attention_norm(x))
            return x + self.ffn(self.ffn_norm(x))
        parts = self.modulation(nn.functional.silu(time_bmd))
        if parts.shape[1] > 1:
            parts = parts.repeat_interleave(x.shape[1] // parts.shape[1], dim=1)
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = parts.chunk(6, dim=-1)
        y = attention(torch.addcmul(shift_a, self.attention_norm(x), 1 + scale_a))
        x = torch.addcmul(x, y, 1 + gate_a)
        y = self.ffn(torch.addcmul(shift_f, self.ffn_norm(x), 1 + scale_f))
        return torch.addcmul(x, y, 1 + gate_f)


def init_transformer(module: nn.Module, blocks: Iterable[HeadBlock], dim: int) -> None:
    """Of the module's linears, of its own parameters (positions, learned tokens), and of its blocks
    as `init_block`; modulations start as the identity."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            truncated_normal_(part.weight, part.in_features**-0.5)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    for layer, block in enumerate(blocks):
        init_block(block.attention, block.ffn, dim, layer)
        if block.modulation is not None:
            nn.init.zeros_(block.modulation.weight)
    for parameter in module.parameters(recurse=False):
        truncated_normal_(parameter, dim**-0.5)


class HeadTrunk(nn.Module):
    """Projections, positions, blocks. `context` depends on no action and no time: compute it once
    per observation, use it for every noise draw and solver step."""

    def __init__(
        self,
        config: TransformerHeadConfig,
        *,
        time: str | None,
        **sizes: Unpack[HeadSizes],
    ) -> None:
        super().__init__()
        dim = config.dim
        self.config, self.time = config, time
        self.horizon = sizes["horizon"]
        self.condition_in = nn.Linear(sizes["condition_dim"], dim)
        proprio_dim = sizes["proprio_dim"]
        self.proprio_in = nn.Linear(proprio_dim, dim) if proprio_dim else None
        self.proprio_positions = (
            nn.Parameter(torch.empty(sizes["proprio_steps"], dim)) if proprio_dim else None
        )
        self.action_positions = nn.Parameter(torch.empty(self.horizon, dim))
        self.time_embedding = TimeEmbedding(dim) if time else None
        self.blocks = Layers(HeadBlock(config, time == "adaln") for _ in range(config.n_layers))
        self.norm = make_norm(config.norm, dim, config.norm_eps)
        self.out = nn.Linear(dim, sizes["action_dim"])
        init_transformer(self, self.blocks, config.dim)
        nn.init.zeros_(self.out.weight)

    def context(self, condition: Tensor, proprio: Tensor | None) -> Tensor:
        """condition [B,C,Dc], proprio [B,S,P] → [B, C+S, D]."""
        tokens = self.condition_in(condition)
        if self.proprio_in is None:
            return tokens
        # Cast: under autocast the projection comes out in bfloat16, the sum should not.
        proprio_tokens = self.proprio_in(proprio) + self.proprio_positions
        return torch.cat((tokens.to(proprio_tokens.dtype), proprio_tokens), dim=1)

    def observed(self, seen: Observation) -> Tensor:
        """`context` of an observation."""
        return self.context(seen.features, seen.proprio)

    def denoise(self, context: Tensor, tokens: Tensor, time_brd: Tensor | None) -> Tensor:
        """context [B,C+S,D], tokens [B,r,K,D], time_brd [B,r,D] → float32 [B,r,K,A]."""
        batch, draws = tokens.shape[:2]
        context = context[:, None].expand(-1, draws, -1, -1).flatten(0, 1)
        time_bd = None if time_brd is None else time_brd.flatten(0, 1)
        return self(context, tokens.flatten(0, 1), time_bd).unflatten(0, (batch, draws))

    def embed(self, times: Tensor) -> Tensor | None:
        """times [b] in [0, 1] → [b,D]; None for a trunk that knows no time."""
        embedded: Tensor | None = self.time_embedding(times) if self.time_embedding else None
        return embedded

    def forward(
        self, context: Tensor, action_tokens: Tensor, time_bd: Tensor | None = None
    ) -> Tensor:
        """context [b,C+S,D], action_tokens [b,K,D] (positions not yet added), time_bd as from
        `embed` → float32 [b,K,A]."""
        action_tokens = action_tokens + self.action_positions
        parts = [context.to(action_tokens.dtype), action_tokens]
        time_b1d = None if time_bd is None else time_bd[:, None]
        if time_b1d is not None:
            if self.time == "token":
                parts.insert(0, time_b1d.to(action_tokens.dtype))
            elif self.time == "sum":
                parts[1] = action_tokens + time_b1d
        x = torch.cat(parts, dim=1)
        for block in self.blocks:
            x = block(x, time_b1d)
        return self.out(self.norm(x[:, -self.horizon :])).float()
