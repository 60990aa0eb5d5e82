"""An action expert on the keys and values of every layer of a decoder.

Legend: B batch, r noise draws, n tokens of a draw ([time;] proprio; K actions), P slots of the
backbone's cache, D width, A action dim.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor, nn

from foundry_core.models.heads.base import HeadSizes
from foundry_core.models.heads.networks.base import ActionHead, Observation, Targets
from foundry_core.models.heads.networks.flow import FlowMatching
from foundry_core.models.heads.networks.trunk import HeadBlock, TimeEmbedding, init_transformer
from foundry_core.models.heads.pi0 import Pi0HeadConfig
from foundry_core.models.kv_cache import LayerKeyValues
from foundry_core.models.layers import (
    Attention,
    AttentionMask,
    Layers,
    LookUp,
    Mask,
    attend,
    make_norm,
)
from foundry_core.models.noise import Key


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What of an observation the expert reads. layers: of the backbone's cache; ends int64 [B]:
    where each row's own tokens begin; proprio [B,S,D]."""

    layers: Sequence[LayerKeyValues]
    ends: Tensor
    proprio: Tensor | None


class Expert(nn.Module):
    """Draws are parts of one sequence that do not see each other: the backbone's keys are never
    copied for them."""

    def __init__(self, config: Pi0HeadConfig, **sizes: Unpack[HeadSizes]) -> None:
        super().__init__()
        dim, proprio_dim = config.dim, sizes["proprio_dim"]
        self.config, self.horizon = config, sizes["horizon"]
        self.shape = shape = sizes["keys_values"]
        self.proprio_in = nn.Linear(proprio_dim, dim) if proprio_dim else None
        self.time_embedding = TimeEmbedding(dim)
        self.blocks = Layers(
            HeadBlock(
                config,
                config.time == "adaln",
                Attention(dim, config.n_heads, n_kv_heads=shape.heads, head_dim=shape.dim),
            )
            for _ in range(config.n_layers)
        )
        self.norm = make_norm(config.norm, dim, config.norm_eps)
        self.out = nn.Linear(dim, sizes["action_dim"])
        init_transformer(self, self.blocks, dim)
        nn.init.zeros_(self.out.weight)

    def observed(self, seen: Observation) -> Seen:
        cache = seen.keys_values
        assert cache is not None
        layers = [cache.layer(number) for number in range(self.config.n_layers)]
        if self.config.insulated:
            layers = [
                LayerKeyValues(keys=x.keys.detach(), values=x.values.detach(), filled=x.filled)
                for x in layers
            ]
        proprio = None if self.proprio_in is None else self.proprio_in(seen.proprio)
        return Seen(layers=layers, ends=seen.prompts.lengths, proprio=proprio)

    def embed(self, times: Tensor) -> Tensor:
        embedded: Tensor = self.time_embedding(times)
        return embedded

    def denoise(self, context: Seen, tokens: Tensor, time_brd: Tensor | None) -> Tensor:
        """tokens [B,r,K,D] → float32 [B,r,K,A]."""
        assert time_brd is not None
        draws = tokens.shape[1]
        x = self._sequence(context, tokens, time_brd)
        length = x.shape[2]
        x = x.flatten(1, 2)
        own = _apart(draws, length, x.device)
        rope = self._rope(context.ends, draws, length)
        for number, block in enumerate(self.blocks):
            look = self._look(context.layers[number], number, own)
            x = block(x, time_brd, None, rope, look)
        x = x.unflatten(1, (draws, length))[:, :, -self.horizon :]
        return self.out(self.norm(x)).float()

    def _sequence(self, context: Seen, tokens: Tensor, time_brd: Tensor) -> Tensor:
        """[B,r,n,D]."""
        draws = tokens.shape[1]
        time = time_brd[:, :, None]
        parts = [tokens + time if self.config.time == "sum" else tokens]
        if context.proprio is not None:
            state = context.proprio[:, None].expand(-1, draws, -1, -1)
            parts.insert(0, state.to(parts[0].dtype))
        if self.config.time == "token":
            parts.insert(0, time.to(parts[-1].dtype))
        return torch.cat(parts, dim=2)

    def _rope(self, ends: Tensor, draws: int, length: int) -> tuple[Tensor, Tensor]:
        """cos and sin, float32 [B, r·n, head dim/2]: each draw's tokens go on where the words
        end."""
        half = self.shape.dim // 2
        powers = torch.arange(half, dtype=torch.float32, device=ends.device) / half
        places = ends[:, None] + torch.arange(length, device=ends.device)
        angles = places.repeat(1, draws)[:, :, None] * self.shape.theta**-powers
        return angles.cos(), angles.sin()

    def _look(self, layer: LayerKeyValues, number: int, own: Tensor) -> LookUp:
        """own bool [r·n, r·n]: which of the expert's tokens see each other."""
        theirs = layer.filled[:, None, None]
        if self.config.attention == "joint":
            size = len(own)
            seen = theirs.expand(-1, -1, size, -1), own.expand(len(theirs), 1, -1, -1)
            both = AttentionMask(torch.cat(seen, dim=-1), causal=False)
            reads = True
        else:
            both = AttentionMask(own if number % 2 else theirs, causal=False)
            reads = number % 2 == 0
        alone = self.config.attention == "alternate"

        def look(q: Tensor, k: Tensor, v: Tensor, _mask: Mask, _causal: bool) -> Tensor:
            if reads:
                keys, values = layer.keys.to(q.dtype), layer.values.to(q.dtype)
                k = keys if alone else torch.cat((keys, k), dim=2)
                v = values if alone else torch.cat((values, v), dim=2)
            return attend(q, k, v, both, False)

        return look


def _apart(draws: int, length: int, device: torch.device) -> Tensor:
    """bool [r·n, r·n]: True within a draw."""
    number = torch.arange(draws * length, device=device) // length
    return number[:, None] == number


class Pi0Head(FlowMatching[Expert]):
    """Flow matching by the expert; with tokens, the backbone says the actions as well."""

    config: Pi0HeadConfig

    def __init__(self, config: Pi0HeadConfig, **sizes: Unpack[HeadSizes]) -> None:
        super().__init__(config, Expert(config, **sizes), **sizes)
        self.config = config
        self.words: ActionHead | None = config.tokens.build(**sizes) if config.tokens else None

    def prepare(self, actions: Tensor, action_mask: Tensor) -> Mapping[str, Tensor]:
        return {} if self.words is None else self.words.prepare(actions, action_mask)

    def training_loss_terms(
        self, seen: Observation, targets: Targets, key: Key
    ) -> tuple[Tensor, Tensor]:
        total, count = super().training_loss_terms(seen, targets, key)
        if self.words is not None:
            nats, _ = self.words.training_loss_terms(seen, targets, key)
            # `count` is of all draws, the words are said once.
            total = total + self.config.tokens_weight * self.draws * nats
        return total, count
