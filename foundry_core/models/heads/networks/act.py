"""Action chunking with transformers, as a conditional variational autoencoder.

The published decoder attends from the chunk's queries to an encoder's memory; here both are one
bidirectional sequence, the transformer that all heads share.

Legend: B batch, S proprio steps, K horizon, A action dim, D width, Z latent.
"""

from typing import Unpack

import torch
from torch import Tensor, nn

from foundry_core.models import noise
from foundry_core.models.heads.act import ActHeadConfig
from foundry_core.models.heads.base import HeadSizes
from foundry_core.models.heads.networks.base import ActionHead, Observation, Request, Targets
from foundry_core.models.heads.networks.trunk import HeadBlock, HeadTrunk, init_transformer
from foundry_core.models.layers import Layers, make_norm

_STREAM = 9


class StyleEncoder(nn.Module):
    """The true chunk and the robot's state → mean and log variance of the style, [B,Z] each. It
    does not look at images, which would make it slow and the style needless."""

    def __init__(self, config: ActHeadConfig, **sizes: Unpack[HeadSizes]) -> None:
        super().__init__()
        dim, proprio_dim = config.dim, sizes["proprio_dim"]
        self.first = nn.Parameter(torch.empty(1, dim))
        self.action_in = nn.Linear(sizes["action_dim"], dim)
        self.proprio_in = nn.Linear(proprio_dim, dim) if proprio_dim else None
        self.positions = nn.Parameter(torch.empty(sizes["proprio_steps"] + sizes["horizon"], dim))
        self.blocks = Layers(HeadBlock(config, modulated=False) for _ in range(config.style_layers))
        self.norm = make_norm(config.norm, dim, config.norm_eps)
        self.out = nn.Linear(dim, 2 * config.latent)
        init_transformer(self, self.blocks, dim)
        nn.init.zeros_(self.out.weight)

    def forward(self, actions: Tensor, proprio: Tensor | None) -> tuple[Tensor, Tensor]:
        tokens = self.action_in(actions)
        if self.proprio_in is not None:
            tokens = torch.cat((self.proprio_in(proprio), tokens), dim=1)
        tokens = tokens + self.positions
        x = torch.cat((self.first.to(tokens.dtype).expand(len(tokens), 1, -1), tokens), dim=1)
        for block in self.blocks:
            x = block(x, None)
        mean, log_variance = self.out(self.norm(x[:, 0])).float().chunk(2, dim=-1)
        return mean, log_variance


class ActHead(ActionHead):
    """K learned queries read the condition, the robot's state and the style."""

    def __init__(self, config: ActHeadConfig, **sizes: Unpack[HeadSizes]) -> None:
        super().__init__()
        self.config = config
        self.style = StyleEncoder(config, **sizes)
        self.style_in = nn.Linear(config.latent, config.dim)
        self.trunk = HeadTrunk(config, time=None, **sizes)

    def predict(self, seen: Observation, style: Tensor) -> Tensor:
        """style [B,Z] → float32 [B,K,A]."""
        context = self.trunk.observed(seen)
        token = self.style_in(style)[:, None]
        context = torch.cat((context.to(token.dtype), token), dim=1)
        # The queries are the trunk's learned action positions alone.
        queries = context.new_zeros(seen.rows, self.trunk.horizon, self.config.dim)
        return self.trunk(context, queries)

    def training_loss_terms(
        self, seen: Observation, targets: Targets, key: noise.Key
    ) -> tuple[Tensor, Tensor]:
        """Absolute errors, and for each of a row's valid elements kl_weight times the divergence of
        the row's style from N(0, 1)."""
        known = targets.known
        mean, log_variance = self.style(known, seen.proprio)
        drawn = noise.normal(key, (self.config.latent,), stream=_STREAM)
        style = mean + (0.5 * log_variance).exp() * drawn
        total = targets.total((self.predict(seen, style) - known).abs())
        distances = divergence(mean, log_variance) * targets.mask.sum(dim=(1, 2))
        return total + self.config.kl_weight * distances, targets.count

    def chunk(self, seen: Observation, request: Request) -> Tensor:
        rows = (seen.rows, self.config.latent)
        return self.predict(seen, torch.zeros(rows, device=seen.prompts.tokens.device))


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, variance) ‖ N(0, 1)), summed over the last dimension: [...]."""
    return 0.5 * (log_variance.exp() + mean.square() - 1 - log_variance).sum(dim=-1)
