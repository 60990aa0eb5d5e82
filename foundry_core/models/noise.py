"""Random numbers that are a pure function of (seed, step, id): the same on any number of ranks, in
any batch order, and after any resume.

A generator's state would depend on how many draws came before. Here each number is a hash of its
coordinates instead: two rounds of the SplitMix64 finaliser (Steele, Lea, Flood 2014) over 64-bit
integers, exact on every device, about 30 elementwise operations per draw and no host sync.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

Coordinate = int | Tensor


class Key(NamedTuple):
    """What a draw depends on. seed, step: ints, or int64 [B] where each row has its own.

    ids int64 [B]: in training the number of the loader's draw, not that of the sample, which a
    small data set brings several times in one batch.
    """

    seed: Coordinate
    step: Coordinate
    ids: Tensor


_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
_LOW_32 = 0xFFFFFFFF


def uniform(key: Key, shape: Sequence[int] = (), *, stream: int) -> Tensor:
    """float32 [B, *shape] in [0, 1), 24 random bits each.

    stream: a constant per use; draws of different streams are independent.
    """
    bits = _bits(key, math.prod(shape), stream)
    values = _shift(bits, 40).to(torch.float32) * 2.0**-24
    return values.view(-1, *shape)


def normal(key: Key, shape: Sequence[int] = (), *, stream: int) -> Tensor:
    """float32 [B, *shape] of N(0, 1), by Box-Muller in float64 (its rounding to float32 hides the
    last-bit differences between math libraries). Arguments as in `uniform`."""
    if torch.compiler.is_compiling():
        # One operation, whatever compiles: what inductor of 2.13 makes of it on a CPU draws other
        # numbers and writes beyond its buffers.
        seed, step = (_row(coordinate, key.ids) for coordinate in key[:2])
        drawn: Tensor = _normal_op(seed, step, key.ids, list(shape), stream)
        return drawn
    return _normal(key, shape, stream)


def _normal(key: Key, shape: Sequence[int], stream: int) -> Tensor:
    count = math.prod(shape)
    bits = _bits(key, (count + 1) // 2, stream)
    radius = (_shift(bits, 32).to(torch.float64) + 0.5) * 2.0**-32
    radius = torch.sqrt(-2.0 * torch.log(radius))
    angle = (bits & _LOW_32).to(torch.float64) * (math.tau * 2.0**-32)
    pairs = torch.stack((radius * torch.cos(angle), radius * torch.sin(angle)), dim=-1)
    return pairs.flatten(1)[:, :count].to(torch.float32).reshape(-1, *shape)


@torch.library.custom_op("foundry::normal", mutates_args=())
def _normal_op(seed: Tensor, step: Tensor, ids: Tensor, shape: list[int], stream: int) -> Tensor:
    return _normal(Key(seed, step, ids), shape, stream).clone()


@_normal_op.register_fake
def _normal_shape(seed: Tensor, step: Tensor, ids: Tensor, shape: list[int], stream: int) -> Tensor:
    return ids.new_empty((len(ids), *shape), dtype=torch.float32)


def _row(coordinate: Coordinate, like: Tensor) -> Tensor:
    """int64 [B]."""
    if isinstance(coordinate, int):
        return torch.full_like(like, _signed(coordinate))
    return coordinate.to(torch.int64).expand_as(like)


def _bits(key: Key, count: int, stream: int) -> Tensor:
    """int64 [B, count] of 64 random bits each."""
    mixed = torch.full_like(key.ids, _signed(stream))
    for coordinate in key:
        mixed = _mix(_absorb(mixed, coordinate))
    counter = torch.arange(1, count + 1, device=mixed.device) * _signed(_GOLDEN)
    # It enters twice: samples whose counters happen to overlap still draw other numbers.
    return _mix(_mix(mixed[:, None] + counter) ^ mixed[:, None])


def _absorb(state: Tensor, value: Coordinate) -> Tensor:
    number = _signed(value) if isinstance(value, int) else value.to(torch.int64)
    return state * _signed(_GOLDEN) + number


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift(x, 30)) * _signed(_MIX_1)
    x = (x ^ _shift(x, 27)) * _signed(_MIX_2)
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift: torch's own keeps the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _signed(value: int) -> int:
    """The int64 with the same low 64 bits."""
    return (value + 2**63) % 2**64 - 2**63
