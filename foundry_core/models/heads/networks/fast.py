"""Chunks as compressed tokens. Legend as in tokens.py; K horizon, A action dim."""

from collections.abc import Mapping
from typing import Unpack

import torch
from torch import Tensor

from foundry_core.models.heads.base import HeadSizes
from foundry_core.models.heads.fast import FastHeadConfig
from foundry_core.models.heads.networks.base import Observation, Request, Targets
from foundry_core.models.heads.networks.pieces import Learnt, Pieces, actions_of, coefficients
from foundry_core.models.heads.networks.tokens import TokenHead, decoder_in
from foundry_core.models.sizes import required

_MULTIPLE = 8
_LOOK_EVERY = 16
"""Steps between two looks whether all rows have ended, where a look waits for a device."""


class FastHead(TokenHead):
    """Says a chunk until the token that ends it, at most a token per element."""

    config: FastHeadConfig
    records = False

    def __init__(self, config: FastHeadConfig, **sizes: Unpack[HeadSizes]) -> None:
        super().__init__(config, **sizes)
        self.pieces = Pieces(
            Learnt(
                low=required(config, "low", config.low),
                high=required(config, "high", config.high),
                merges=required(config, "merges", config.merges),
            )
        )
        self._end, self._longest = config.pieces, self.horizon * self.action_dim

    def prepare(self, actions: Tensor, action_mask: Tensor) -> Mapping[str, Tensor]:
        """tokens int64 [B,n]: those of each chunk, its end, and -1 where there are no more."""
        known = torch.where(action_mask, actions.float(), 0.0).cpu().numpy()
        rows = [
            [*self.pieces.encode(numbers), self._end]
            for numbers in coefficients(known, self.config.scale).tolist()
        ]
        longest = -(-max(map(len, rows)) // _MULTIPLE) * _MULTIPLE
        return {"tokens": torch.tensor([row + [-1] * (longest - len(row)) for row in rows])}

    def words(self, targets: Targets) -> tuple[Tensor, Tensor]:
        tokens = targets.prepared["tokens"]
        return tokens.clamp(min=0), tokens >= 0

    def chunk(self, seen: Observation, request: Request) -> Tensor:
        decoder, count = decoder_in(seen), self._longest + 1
        uniforms = self.uniforms(request.key, count)
        hidden, cache = decoder.prefill(seen.prompts, room=count - 1)
        said: list[Tensor] = []
        ended = torch.zeros_like(seen.prompts.lengths, dtype=torch.bool)
        look_every = 1 if ended.device.type == "cpu" else _LOOK_EVERY
        for number in range(count):
            token = self.pick(self.logits(decoder, hidden), uniforms[:, number])
            said.append(token)
            ended = ended | (token == self._end)
            if len(said) % look_every == 0 and bool(ended.all()):
                break
            if number + 1 < count:
                hidden = decoder.step(self.rows_of(token), cache)
        rows = torch.stack(said, dim=1)
        return self._actions(rows.tolist()).to(rows.device)

    def _actions(self, rows: list[list[int]]) -> Tensor:
        """float32 [B,K,A] of what was said."""
        whole = [row[: row.index(self._end)] if self._end in row else row for row in rows]
        numbers = torch.tensor([self.pieces.decode(row, self._longest) for row in whole])
        return torch.from_numpy(actions_of(numbers.numpy(), self.horizon, self.config.scale))
