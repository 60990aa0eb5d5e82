"""What is kept of an episode: a filmstrip to look at, a video to watch, its numbers by step."""

import io
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.video.stream import VideoStream
from PIL import Image

_GAP = 4
_H264 = {"crf": "23", "preset": "veryfast", "threads": "1"}
"""What every browser plays; one thread, for the other cores simulate."""
_RATE = 1000


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
    """MP4 (H.264) at `hz` frames per second of simulated time; the last frame is held.
    Equal frames need not give equal bytes: x264 does not promise them."""
    height, width = (side + side % 2 for side in frames[0].shape[:2])
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        rate = Fraction(hz).limit_denominator(_RATE)
        stream = container.add_stream("libx264", rate=rate, options=_H264)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        held = [frames[-1]] * round(hold_seconds * hz)
        for at, picture in enumerate((*frames, *held)):
            frame = av.VideoFrame.from_ndarray(_even(picture), format="rgb24")
            frame.pts, frame.time_base = at, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def _even(picture: np.ndarray) -> np.ndarray:
    """yuv420p halves both sides: an odd one gets its last row or column twice."""
    height, width, _ = picture.shape
    padded = np.pad(picture, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return np.ascontiguousarray(padded)


def encode_track(steps: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> bytes:
    """NPZ of (measured fields, commanded ones) of each control step: `observed/<field>` and
    `commanded/<field>`, each [T, D]."""
    arrays: dict[str, Any] = {}
    for kind, side in (("observed", 0), ("commanded", 1)):
        for name in steps[0][side] if steps else ():
            rows = [np.asarray(step[side][name], np.float64) for step in steps]
            arrays[f"{kind}/{name}"] = np.stack(rows)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()
