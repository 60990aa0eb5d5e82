"""How much of a device's peak a step could reach.

The roofline of a step: each operator takes at least max(its FLOPs / P, its bytes / B), with P the
peak of products and B the bandwidth of memory. With F the step's FLOPs that MFU counts,

    MFU ≤ F / (P · Σ max(flops / P, bytes / B))

once over all operators as they run uncompiled (each reads its inputs and writes its outputs), once
over products alone (matrix products, convolutions, attention), as if everything else were fused
away. And what is to be gained by faster products alone, with all else as slow as it is now:

    MFU ≤ (F / P) / (F / P + seconds outside of products)
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise

import torch

from foundry_core.training.peaks import bandwidth_of
from foundry_core.training.profiling.clocks import clock_of
from foundry_core.training.profiling.counting import Work

_TRIES = 5


@dataclass(frozen=True, kw_only=True)
class Peaks:
    """FLOP/s of products and bytes/s of memory. known: the FLOP/s are stated, by the maker or by
    the stage's resources; else they are what products reach here."""

    flops: float
    bandwidth: float
    known: bool
    how: str


@dataclass(frozen=True, kw_only=True)
class Ceiling:
    """Upper bounds of MFU, each for another reason: see the module."""

    peaks: Peaks
    eager: float
    products: float
    now: float


def ceiling_of(
    work: Iterable[Work], flops: float, seconds_outside_products: float, peaks: Peaks
) -> Ceiling:
    """flops: those of a step that MFU counts."""
    least = [(max(w.flops / peaks.flops, w.bytes / peaks.bandwidth), w.is_product) for w in work]
    ideal = flops / peaks.flops
    return Ceiling(
        peaks=peaks,
        eager=_share(ideal, sum(seconds for seconds, _ in least)),
        products=_share(ideal, sum(seconds for seconds, product in least if product)),
        now=_share(ideal, ideal + seconds_outside_products),
    )


def _share(part: float, whole: float) -> float:
    return min(1.0, part / whole) if whole else 1.0


def peaks_of(device: torch.device, dtype: torch.dtype, stated: float | None) -> Peaks:
    """stated: FLOP/s that MFU is of, where they are known. What is not known is measured, which
    takes a fraction of a second."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    bandwidth = bandwidth_of(name)
    words = []
    if stated is None:
        kind = str(dtype).removeprefix("torch.")
        words.append(f"P: {kind} products measured here")
    else:
        words.append("P: stated, dense bf16")
    words.append("B: copies measured here" if bandwidth is None else "B: stated")
    return Peaks(
        flops=_products(device, dtype) if stated is None else stated,
        bandwidth=_copies(device) if bandwidth is None else bandwidth,
        known=stated is not None,
        how="; ".join(words),
    )


def _products(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of square products."""
    best = 0.0
    for side in (2048, 8192) if device.type == "cuda" else (256, 512, 1024):
        a = torch.ones(side, side, device=device, dtype=dtype)
        best = max(best, 2 * side**3 / _least_seconds(device, lambda a=a: a @ a))  # type: ignore[misc]
    return best


def _copies(device: torch.device) -> float:
    """Bytes read and written per second; a CPU's best is that of its cache, which small operators
    stay in."""
    best = 0.0
    for size in (2**28,) if device.type == "cuda" else (2**18, 2**21, 2**26):
        a = torch.zeros(size, device=device, dtype=torch.uint8)
        b = torch.empty_like(a)
        best = max(best, 2 * size / _least_seconds(device, lambda a=a, b=b: b.copy_(a)))  # type: ignore[misc]
    return best


def _least_seconds(device: torch.device, work: Callable[[], object]) -> float:
    """Of several tries, after one."""
    clock = clock_of(device)
    work()
    marks = [clock.mark()]
    for _ in range(_TRIES):
        work()
        marks.append(clock.mark())
    clock.finish()
    return max(1e-9, min(clock.seconds(a, b) for a, b in pairwise(marks)))
