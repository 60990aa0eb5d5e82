"""Keys and values of tokens that were read: what makes the next token cost one position.

One rule: prompts are padded on the right, and a row's result does not depend on its padding. In a
native cache a row's slot is its position. What follows a prompt takes over the slots of its
padding, which no query could see before: it comes after.

Legend: B batch, S slots, H key heads, D head dim, G query heads per key head.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from foundry_core.errors import FoundryError
from foundry_core.models.layers import AttentionMask, LookUp, Mask, attend


@dataclass(frozen=True, kw_only=True)
class LayerKeyValues:
    """keys, values [B,H,S,D] of a layer, positions turned in; filled bool [B,S]: slots that hold a
    token of the row."""

    keys: Tensor
    values: Tensor
    filled: Tensor


class KeyValues(ABC):
    """lengths int64 [B]: tokens that each row has read. room: how many more fit, for all alike.

    The buffers never grow: 2 · layers · B · H · S · D numbers, S the longest prompt and the room.
    """

    lengths: Tensor
    room: int

    @abstractmethod
    def layer(self, index: int) -> LayerKeyValues:
        """What a layer of the decoder keeps; views, which the next step writes to."""

    @property
    @abstractmethod
    def nbytes(self) -> int:
        """Of all layers' buffers."""

    def take_room(self) -> None:
        """One more token is read. FoundryError where none fits."""
        if self.room < 1:
            raise FoundryError("the cache is full", "ask for more room when the prompt is read")
        self.room -= 1


class StaticKeyValues(KeyValues):
    """A native decoder's. Without room for more the buffers are the prompt's keys and values as
    they were computed, and gradients flow through them."""

    def __init__(self, n_layers: int, lengths: Tensor, longest: int, room: int) -> None:
        self.lengths, self.room = lengths.clone(), room
        self.slots = longest + room
        self._read = longest  # upper bound of the lengths that needs no look at the device
        self._layers = [_Layer(room) for _ in range(n_layers)]

    @property
    def prefill(self) -> list[LookUp]:
        """Per layer: attends as ever, and keeps the keys and values."""
        return [layer.prefill for layer in self._layers]

    def step(self) -> "Step":
        """Reads one token per row: where it stands, and what its layers look at."""
        self.take_room()
        self._read += 1
        # On a device one shape serves all steps, as CUDA graphs need; a CPU saves the work.
        width = self._read if self.lengths.device.type == "cpu" else self.slots
        step = Step(positions=self.lengths.clone(), width=width, layers=self._layers)
        self.lengths += 1
        return step

    def layer(self, index: int) -> LayerKeyValues:
        keys, values = self._layers[index].buffers
        filled = torch.arange(self.slots, device=keys.device) < self.lengths[:, None]
        return LayerKeyValues(keys=keys, values=values, filled=filled)

    @property
    def nbytes(self) -> int:
        return sum(buffer.nbytes for layer in self._layers for buffer in layer.buffers)


class Step:
    """One token of each row at positions int64 [B]; only the first `width` slots are looked at."""

    def __init__(self, *, positions: Tensor, width: int, layers: "list[_Layer]") -> None:
        self.positions = positions
        allowed = torch.arange(width, device=positions.device) <= positions[:, None]
        self.mask = AttentionMask(allowed[:, None, None], causal=False)
        self._width, self._layers = width, layers

    @property
    def looks(self) -> list[LookUp]:
        """Per layer: adds the row's keys and values, and looks at all it has."""
        return [self._of(layer) for layer in self._layers]

    def _of(self, layer: "_Layer") -> LookUp:
        def look(q: Tensor, k: Tensor, v: Tensor, mask: Mask, causal: bool) -> Tensor:
            assert isinstance(mask, AttentionMask)
            keys, values = layer.buffers
            at = self.positions[:, None, None, None].expand_as(k)
            keys.scatter_(2, at, k.to(keys.dtype))
            values.scatter_(2, at, v.to(values.dtype))
            return attend_one(q, keys[:, :, : self._width], values[:, :, : self._width], mask)

        return look


class _Layer:
    """Buffers [B,H,S,D] of one layer."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._buffers: tuple[Tensor, Tensor] | None = None

    @property
    def buffers(self) -> tuple[Tensor, Tensor]:
        """Keys and values."""
        assert self._buffers is not None, "nothing was read yet"
        return self._buffers

    def prefill(self, q: Tensor, k: Tensor, v: Tensor, mask: Mask, causal: bool) -> Tensor:
        """`attend`; k and v are kept."""
        self._buffers = _with_room(k, self._room), _with_room(v, self._room)
        return attend(q, k, v, mask, causal)


def _with_room(x: Tensor, room: int) -> Tensor:
    if room == 0:
        return x.contiguous()
    batch, heads, length, dim = x.shape
    buffer = x.new_zeros(batch, heads, length + room, dim)
    buffer[:, :, :length] = x
    return buffer


def attend_one(q: Tensor, keys: Tensor, values: Tensor, mask: AttentionMask) -> Tensor:
    """One query per row and head, q [B, H·G, 1, D], over keys and values [B,H,S,D] → q's shape.

    The G queries of a key head are its rows: no key is copied for them.
    """
    batch, n_heads, _, dim = q.shape
    q = q.reshape(batch, keys.shape[1], -1, dim)
    if _plain(q):
        scores = (q * (1.0 / math.sqrt(dim))) @ keys.transpose(-2, -1)
        y = (scores + mask.bias(scores.dtype)).softmax(dim=-1) @ values
    else:
        y = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask.allowed)
    return y.reshape(batch, n_heads, 1, dim)


def _plain(q: Tensor) -> bool:
    """Whether matmul, softmax, matmul are taken, as `attend` does on a CPU."""
    return q.device.type == "cpu"
