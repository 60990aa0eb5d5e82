"""Windows of fixed length around anchor steps of an episode, with masks of what is real.

Anchor a covers the steps a-past .. a+future, T = past + 1 + future. Steps before the episode's
first or after its last are padding: filled by `padding`, excluded from statistics and loss by the
masks. The anchor itself belongs to the future mask (it is the first step an action is for).
"""

from collections.abc import Mapping

import numpy as np

from foundry_core.data.config import Runs, WindowConfig
from foundry_core.errors import FoundryError


def anchors(length: int, window: WindowConfig, left_out: Runs = ()) -> np.ndarray:
    """Kept anchors (int64 [N]) of an episode of `length` steps: every `stride`-th step whose
    padding exceeds neither limit. left_out: runs [first, stop) of steps that are none."""
    steps = np.arange(0, length, window.stride, dtype=np.int64)
    left = np.maximum(0, window.past - steps)
    right = np.maximum(0, steps + window.future - (length - 1))
    kept = (left <= window.max_padding_left) & (right <= window.max_padding_right)
    for first, stop in left_out:
        kept &= (steps < first) | (steps >= stop)
    return steps[kept]


def window_masks(
    length: int, anchor_steps: np.ndarray, window: WindowConfig
) -> tuple[np.ndarray, np.ndarray]:
    """(past_mask, future_mask), bool [N, T]: the real steps before the anchor, and from it on."""
    steps = _steps(anchor_steps, window)
    real = (steps >= 0) & (steps < length)
    before = np.arange(window.length) < window.past
    return real & before, real & ~before


def source_steps(length: int, anchor_steps: np.ndarray, window: WindowConfig) -> np.ndarray:
    """int64 [N, T]: which step of the episode fills each place, -1 where padding is zero.

    reflect mirrors about the edge step without repeating it (1 2 | 0 1 2 ... reads 2 1 | 0 1 2),
    bouncing back and forth where the window is longer than the episode.
    """
    steps = _steps(anchor_steps, window)
    last = length - 1
    if window.padding == "copy":
        return np.clip(steps, 0, last)
    if window.padding == "zero":
        return np.where((steps >= 0) & (steps <= last), steps, -1)
    if last == 0:
        return np.zeros_like(steps)
    phase = np.mod(steps, 2 * last)
    return np.where(phase <= last, phase, 2 * last - phase)


def cut_windows(
    lowdim: Mapping[str, np.ndarray], anchor_steps: np.ndarray, window: WindowConfig
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """All windows of an episode at once: ({field: [N, T, ...]}, past_mask, future_mask).

    Every field is [L, ...] with one L. One gather per field: ~100 windows cost what one would.
    """
    length = episode_length(lowdim)
    sources = source_steps(length, anchor_steps, window)
    cut = {name: np.asarray(values)[sources] for name, values in lowdim.items()}
    if window.padding == "zero":
        for values in cut.values():
            values[sources < 0] = values.dtype.type()
    return cut, *window_masks(length, anchor_steps, window)


def image_steps(length: int, anchor_steps: np.ndarray, offsets: tuple[int, ...]) -> np.ndarray:
    """int64 [N, len(offsets)]: the steps whose images belong to each anchor, clamped at the
    episode's edges (an image is never invented)."""
    wanted = np.asarray(anchor_steps)[:, None] + np.asarray(offsets, dtype=np.int64)
    return np.clip(wanted, 0, length - 1)


def episode_length(lowdim: Mapping[str, np.ndarray]) -> int:
    """Steps of an episode. FoundryError where its fields differ in length."""
    lengths = {name: len(values) for name, values in lowdim.items()}
    if len(set(lengths.values())) != 1:
        raise FoundryError(
            f"fields of one episode differ in length: {dict(sorted(lengths.items()))}",
            "every field needs one row per step",
        )
    return next(iter(lengths.values()))


def _steps(anchor_steps: np.ndarray, window: WindowConfig) -> np.ndarray:
    reach = np.arange(-window.past, window.future + 1, dtype=np.int64)
    return np.asarray(anchor_steps, dtype=np.int64)[:, None] + reach
