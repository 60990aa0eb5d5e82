"""Actions as tokens that the backbone's language model says.

Legend: B batch, T prompt tokens, n action tokens, V tokens that the head speaks, D width.
"""

from abc import abstractmethod
from dataclasses import replace
from typing import Unpack

import torch
from torch import Tensor
from torch.nn import functional as F

from foundry_core.models import noise
from foundry_core.models.generation import draw
from foundry_core.models.heads.base import HeadSizes
from foundry_core.models.heads.networks.base import ActionHead, Observation, Targets
from foundry_core.models.heads.tokens import TokenHeadConfig
from foundry_core.models.interfaces import Backbone, Prompts
from foundry_core.models.sizes import required
from foundry_core.models.tables import constants

_STREAM = 8


class TokenHead(ActionHead):
    """Has no weights of its own: embeddings and output rows are the backbone's. Tokens are numbered
    from 0 to V − 1 here; `token_ids` says which rows of the vocabulary they are."""

    compiles = False

    def __init__(self, config: TokenHeadConfig, **sizes: Unpack[HeadSizes]) -> None:
        super().__init__()
        self.config = config
        self.token_ids = required(config, "token_ids", config.token_ids)
        self.horizon, self.action_dim = sizes["horizon"], sizes["action_dim"]

    @abstractmethod
    def words(self, targets: Targets) -> tuple[Tensor, Tensor]:
        """(tokens int64 [B,n] from 0 to V − 1, bool [B,n]: which of them count)."""

    def training_loss_terms(
        self, seen: Observation, targets: Targets, key: noise.Key
    ) -> tuple[Tensor, Tensor]:
        """Nats of all tokens; nothing is drawn, so key is unread."""
        tokens, counted = self.words(targets)
        losses = self.losses(seen, tokens)
        return torch.where(counted, losses, 0.0).sum(dim=1), targets.count

    def losses(self, seen: Observation, tokens: Tensor) -> Tensor:
        """−log p of each of the tokens [B,n], given the prompt and those before it; float32."""
        decoder, prompts = decoder_in(seen), seen.prompts
        read = _followed(prompts, self.rows_of(tokens))
        hidden = decoder.hidden_of(read, prompts.lengths)
        places = prompts.lengths[:, None] - 1 + _numbers(tokens)
        hidden = hidden.gather(1, places[:, :, None].expand(-1, -1, hidden.shape[-1]))
        logits = self.logits(decoder, hidden)
        return F.cross_entropy(logits.flatten(0, 1), tokens.flatten(), reduction="none").view_as(
            tokens
        )

    def logits(self, decoder: Backbone, hidden: Tensor) -> Tensor:
        """Hidden states [...,D] → float32 [...,V]."""
        weight, bias, cap = decoder.output_layer
        ids = self._ids(weight.device)
        found = F.linear(hidden, weight[ids], None if bias is None else bias[ids]).float()
        return found if cap is None else cap * torch.tanh(found / cap)

    def rows_of(self, tokens: Tensor) -> Tensor:
        """Numbers 0 … V − 1 → rows of the vocabulary."""
        return self._ids(tokens.device)[tokens]

    def uniforms(self, key: noise.Key, count: int) -> Tensor:
        """[B,count,2]: what `count` tokens are drawn with."""
        return noise.uniform(key, (count, 2), stream=_STREAM)

    def pick(self, logits: Tensor, uniform: Tensor) -> Tensor:
        """A token, int64 [B], of logits [B,V]; uniform [B,2]."""
        if self.config.temperature == 0:
            return logits.argmax(dim=-1)
        return draw((logits.double() / self.config.temperature).softmax(dim=-1), uniform)

    def _ids(self, device: torch.device) -> Tensor:
        # Row numbers are exact in float32 up to 2^24.
        return constants(self.token_ids, device).long()


def decoder_in(seen: Observation) -> Backbone:
    assert seen.decoder is not None, "the head's config does not say that it needs the decoder"
    return seen.decoder


def _numbers(tokens: Tensor) -> Tensor:
    return torch.arange(tokens.shape[1], device=tokens.device)


def _followed(prompts: Prompts, tokens: Tensor) -> Prompts:
    """Each row with its tokens [B,n] right behind it."""
    count = tokens.shape[1]
    rows = F.pad(prompts.tokens, (0, count))
    places = prompts.lengths[:, None] + _numbers(tokens)
    return replace(prompts, tokens=rows.scatter(1, places, tokens), lengths=prompts.lengths + count)
