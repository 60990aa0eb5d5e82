"""A token per action element, 256 bins in the published models. Legend as in tokens.py; K horizon,
A action dim, n = K·A."""

from typing import Unpack

import torch
from torch import Tensor

from foundry_core.models.heads.base import HeadSizes
from foundry_core.models.heads.bins import BinsHeadConfig
from foundry_core.models.heads.networks.base import Observation, Request, Targets
from foundry_core.models.heads.networks.tokens import TokenHead, decoder_in


def bins_of(actions: Tensor, bins: int, limit: float) -> Tensor:
    """int64: which of `bins` equal parts of [-limit, limit]; the outermost take what is beyond."""
    return ((actions + limit) * (bins / (2 * limit))).floor().clamp(0, bins - 1).long()


def centres_of(tokens: Tensor, bins: int, limit: float) -> Tensor:
    """float32: the middle of each bin, at most limit/bins from whatever was in it."""
    return (tokens.float() + 0.5) * (2 * limit / bins) - limit


class BinsHead(TokenHead):
    """Says the chunk step by step, element by element."""

    config: BinsHeadConfig

    def __init__(self, config: BinsHeadConfig, **sizes: Unpack[HeadSizes]) -> None:
        super().__init__(config, **sizes)

    def words(self, targets: Targets) -> tuple[Tensor, Tensor]:
        tokens = bins_of(targets.known, self.config.bins, self.config.limit)
        return tokens.flatten(1), targets.mask.flatten(1)

    def chunk(self, seen: Observation, request: Request) -> Tensor:
        """What the robot lacks is said as 0, as in training."""
        decoder, count = decoder_in(seen), self.horizon * self.action_dim
        has = None if request.action_mask is None else request.action_mask.flatten(1)
        uniforms = self.uniforms(request.key, count)
        hidden, cache = decoder.prefill(seen.prompts, room=count - 1)
        said = []
        for number in range(count):
            token = self.pick(self.logits(decoder, hidden), uniforms[:, number])
            if has is not None:
                # Where 0 lies.
                token = torch.where(has[:, number], token, self.config.bins // 2)
            said.append(token)
            if number + 1 < count:
                hidden = decoder.step(self.rows_of(token), cache)
        tokens = torch.stack(said, dim=1).unflatten(1, (self.horizon, self.action_dim))
        return centres_of(tokens, self.config.bins, self.config.limit)
