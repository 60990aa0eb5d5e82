"""Pictures of an episode: a filmstrip to look at, a video to watch. NumPy and Pillow only."""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

_GAP = 4
_WEBP_QUALITY = 75


def encode_filmstrip(frames: Sequence[np.ndarray], count: int = 8) -> bytes:
    """PNG with `count` frames side by side, evenly spaced from the first to the last."""
    chosen = np.unique(np.linspace(0, len(frames) - 1, min(count, len(frames))).round().astype(int))
    height, width, _ = frames[0].shape
    sheet = np.full((height, len(chosen) * (width + _GAP) - _GAP, 3), 255, dtype=np.uint8)
    for place, index in enumerate(chosen):
        left = place * (width + _GAP)
        sheet[:, left : left + width] = frames[index]
    buffer = io.BytesIO()
    Image.fromarray(sheet).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def encode_video(frames: Sequence[np.ndarray], hz: float, hold_seconds: float = 1.0) -> bytes:
    """Animated WebP at `hz` frames per second of simulated time; the last frame is held."""
    pictures = [Image.fromarray(np.ascontiguousarray(frame)) for frame in frames]
    durations = [round(1000 / hz)] * len(pictures)
    durations[-1] = round(1000 * hold_seconds)
    buffer = io.BytesIO()
    pictures[0].save(
        buffer,
        format="WEBP",
        save_all=True,
        append_images=pictures[1:],
        duration=durations,
        loop=0,
        quality=_WEBP_QUALITY,
    )
    return buffer.getvalue()
