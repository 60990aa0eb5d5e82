"""Which samples 128 ranks take in 10^6 steps of 1,024: each exactly once."""

import random
from pathlib import Path
from typing import Any

import numpy as np
from measured import Clock, Part, Row, growing

from foundry_core.data.keyed import key, mix_array
from foundry_core.data.loading.order import Order, rank_slice
from foundry_core.data.loading.permutation import Permutation

RANKS, BATCH, STEPS, SEED = 128, 1_024, 1_000_000, 0
_TRACED = 2_000_000
# Steps that are drawn at once: their draws and their marks stay in a core's cache.
_AT_ONCE = 16


def measure(folder: Path, steps: int) -> Row:
    """One epoch that ends with the last step. Every draw is made and marked: all samples were
    drawn, and by counting none twice. Two million of them are traced back to the one position that
    draws them, by the inverse of the permutation."""
    total = steps * BATCH
    # Of ten datasets in one pool, as many samples as there are draws.
    parts = {f"d{i}": total // 10 + (i < total % 10) for i in range(10)}
    whole = Order(parts, None, seed=SEED)
    return {
        "steps": steps,
        "draws, all made and marked": total,
        "CPU s of that": _walk(whole, steps),
        "samples traced": _trace(whole, min(total, _TRACED)),
        "steps compared rank by rank": _check_ranks(whole, steps),
        "us of a rank's step": 1e6 * _rank_step(whole, steps),
    }


def _walk(whole: Order, steps: int) -> float:
    """CPU seconds of all draws, each marked in a byte of its own."""
    total = steps * BATCH
    seen = np.zeros(total, dtype=bool)
    starts = np.concatenate([[0], np.cumsum(whole.sizes)])
    clock = Clock()
    for first in range(0, steps, _AT_ONCE):
        draws = whole.draws(first * BATCH, min(_AT_ONCE, steps - first) * BATCH)
        seen[starts[draws.dataset] + draws.sample] = True
    seconds = clock.cpu
    assert seen.all(), f"{total - int(seen.sum())} of {total} samples were never drawn"
    return seconds


def _trace(whole: Order, count: int) -> int:
    """For `count` samples, the position that draws each: draws there must give the sample."""
    total = int(whole.sizes.sum())
    starts = np.concatenate([[0], np.cumsum(whole.sizes)])
    permutation = Permutation(total, key(SEED, "", 0))  # the pool's, in its first epoch
    samples = np.random.default_rng(0).integers(0, total, count, dtype=np.uint64)
    positions = _inverse(permutation, samples)
    while (outside := positions >= total).any():  # the way back along the cycle
        positions[outside] = _inverse(permutation, positions[outside])
    assert np.array_equal(permutation(positions.astype(np.int64)), samples.astype(np.int64))
    for place, sample in list(zip(positions.tolist(), samples.tolist(), strict=True))[:500]:
        draw = whole.draws(place, 1)
        assert starts[draw.dataset[0]] + draw.sample[0] == sample
    return count


def _inverse(permutation: Any, values: Any) -> Any:
    """Of the Feistel network, written here a second time: its rounds from the last to the first."""
    half, mask = permutation._half, permutation._mask
    left, right = values >> half, values & mask
    for of_round in permutation._keys[::-1]:
        left, right = right ^ (mix_array(left + of_round) & mask), left
    return (left << half) | right


def _check_ranks(whole: Order, steps: int) -> int:
    """What 128 ranks draw, and 64 after a restart with half of them, is the step's batch."""
    drawn = random.Random(0)
    chosen = sorted({0, steps - 1, *(drawn.randrange(steps) for _ in range(48))})
    for step in chosen:
        batch = whole.draws(step * BATCH, BATCH)
        for world in (RANKS, RANKS // 2):
            parts = [rank_slice(BATCH, rank, world) for rank in range(world)]
            mine = [whole.draws(step * BATCH + p.start, p.stop - p.start) for p in parts]
            for column in ("dataset", "sample", "epoch"):
                got = np.concatenate([getattr(one, column) for one in mine])
                assert np.array_equal(got, getattr(batch, column)), (step, world, column)
    return len(chosen)


def _rank_step(whole: Order, steps: int) -> float:
    """Seconds of CPU in which the last rank names its samples of one step, near the end."""
    part = rank_slice(BATCH, RANKS - 1, RANKS)
    clock = Clock()
    for step in range(max(0, steps - 1_000), steps):
        whole.draws(step * BATCH + part.start, part.stop - part.start)
    return clock.cpu / min(steps, 1_000)


PART = Part(sizes=growing(STEPS, apart=10), measure=measure)
