"""Transformers' static cache behind our interface.

Its rows share one slot per step, so prompts are shifted to end together: what pads a row lies on
its left, masked, and windows of attention count what is really there.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import StaticCache

from foundry_core.errors import FoundryError
from foundry_core.models.kv_cache import KeyValues, LayerKeyValues


class Shift:
    """Rows [B,T,...] that are padded on the right ↔ padded on the left; lengths int64 [B]."""

    def __init__(self, lengths: Tensor, longest: int) -> None:
        self._by = longest - lengths
        slots = torch.arange(longest, device=lengths.device)
        self._from = (slots - self._by[:, None]) % longest

    def left(self, x: Tensor) -> Tensor:
        """The rows, their padding on the left."""
        index = self._from.view(*self._from.shape, *[1] * (x.ndim - 2))
        return x.gather(1, index.expand(-1, -1, *x.shape[2:]))

    def filled(self, slots: int) -> Tensor:
        """bool [B, slots]: False at the padding on the left."""
        return torch.arange(slots, device=self._by.device) >= self._by[:, None]


class OneType(StaticCache):
    """Keeps values in the type of their keys: under autocast positions are turned into keys in
    float32, and values come in bfloat16."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = super().update(
            key_states, value_states.to(key_states.dtype), *args, **kwargs
        )
        return found


class HFKeyValues(KeyValues):
    """cache: transformers'. mask bool [B,S]: False at padding, True also in slots to come.

    next_positions int64 [B]: where the next token stands; set once the prompt is read.
    """

    next_positions: Tensor

    def __init__(self, settings: Any, lengths: Tensor, longest: int, room: int) -> None:
        self.lengths, self.room = lengths.clone(), room
        self.shift = Shift(lengths, longest)
        self.mask = self.shift.filled(longest + room)
        self.cache = OneType(config=settings, max_cache_len=longest + room)
        self._read = longest

    def take_room(self) -> None:
        super().take_room()
        self._read += 1
        self.lengths += 1

    def layer(self, index: int) -> LayerKeyValues:
        """Layers that attend within a window keep its tokens alone."""
        layer = self.cache.layers[index]
        keys, values = getattr(layer, "keys", None), getattr(layer, "values", None)
        if keys is None or values is None:
            raise FoundryError(
                f"layer {index} keeps no keys and values of its own ({type(layer).__name__})",
                "read another layer, or take another backbone",
            )
        slots = keys.shape[2]
        end = max(self._read, slots)
        filled = self.mask[:, end - slots : end].clone()
        filled[:, self._read :] = False
        return LayerKeyValues(keys=keys, values=values, filled=filled)

    @property
    def nbytes(self) -> int:
        kept = [(getattr(x, "keys", None), getattr(x, "values", None)) for x in self.cache.layers]
        return sum(buffer.nbytes for pair in kept for buffer in pair if buffer is not None)
