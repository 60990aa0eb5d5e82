"""Random numbers that are a pure function of (seed, step, sample id): the same on any number of
ranks, in any batch order, and after any resume.

A generator's state would depend on how many draws came before. Here each number is a hash of its
coordinates instead: two rounds of the SplitMix64 finaliser (Steele, Lea, Flood 2014) over 64-bit
integers, exact on every device, about 30 elementwise operations per draw and no host sync.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

Coordinate = int | Tensor

_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB
_LOW_32 = 0xFFFFFFFF


def uniform(
    seed: Coordinate,
    step: Coordinate,
    sample_ids: Tensor,
    shape: Sequence[int] = (),
    *,
    stream: int,
) -> Tensor:
    """float32 [B, *shape] in [0, 1), 24 random bits each.

    seed, step: ints, or int64 [B] where each sample has its own. sample_ids: int64 [B].
    stream: a constant per use; draws of different streams are independent.
    """
    bits = _bits(seed, step, sample_ids, math.prod(shape), stream)
    values = _shift(bits, 40).to(torch.float32) * 2.0**-24
    return values.view(-1, *shape)


def normal(
    seed: Coordinate,
    step: Coordinate,
    sample_ids: Tensor,
    shape: Sequence[int] = (),
    *,
    stream: int,
) -> Tensor:
    """float32 [B, *shape] of N(0, 1), by Box-Muller in float64 (its rounding to float32 hides the
    last-bit differences between math libraries). Arguments as in `uniform`."""
    count = math.prod(shape)
    bits = _bits(seed, step, sample_ids, (count + 1) // 2, stream)
    radius = (_shift(bits, 32).to(torch.float64) + 0.5) * 2.0**-32
    radius = torch.sqrt(-2.0 * torch.log(radius))
    angle = (bits & _LOW_32).to(torch.float64) * (math.tau * 2.0**-32)
    pairs = torch.stack((radius * torch.cos(angle), radius * torch.sin(angle)), dim=-1)
    return pairs.flatten(1)[:, :count].to(torch.float32).reshape(-1, *shape)


def _bits(
    seed: Coordinate, step: Coordinate, sample_ids: Tensor, count: int, stream: int
) -> Tensor:
    """int64 [B, count] of 64 random bits each."""
    key = _mix(_absorb(torch.full_like(sample_ids, _signed(stream)), seed))
    key = _mix(_absorb(key, step))
    key = _mix(_absorb(key, sample_ids))
    counter = torch.arange(1, count + 1, device=sample_ids.device) * _signed(_GOLDEN)
    # The key enters twice: samples whose counters happen to overlap still draw other numbers.
    return _mix(_mix(key[:, None] + counter) ^ key[:, None])


def _absorb(key: Tensor, value: Coordinate) -> Tensor:
    if isinstance(value, int):
        return key * _signed(_GOLDEN) + _signed(value)
    return key * _signed(_GOLDEN) + value.to(torch.int64)


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
