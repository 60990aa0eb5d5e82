"""Pictures and depth of one episode of a LeRobot dataset, read when they are asked for.

Depth in metres. As a video it is a code of 12 bits, on a line or, by default, on a logarithm:
d = exp(ln(min + shift) + code / 4095 * (ln(max + shift) - ln(min + shift))) - shift.
"""

import io
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydantic import Field

from foundry_core.config.validation import validate
from foundry_core.data.contract.fields import UNITS
from foundry_core.data.images import image_size
from foundry_core.data.robot.episodes import Frames, UnusableEpisode
from foundry_core.data.sources.robot.lerobot_meta import Feature
from foundry_core.data.sources.robot.lerobot_tables import EpisodeRows
from foundry_core.data.sources.robot.steps import check_file
from foundry_core.data.video import VideoReader
from foundry_core.errors import FoundryError
from foundry_core.pipeline.stage import Config

_CODES = 4095


class DepthCode(Config):
    """How depth is stored. All but unit: metres, of videos."""

    depth_min: float = 0.01
    depth_max: float = 10.0
    shift: float = Field(3.5)
    use_log: bool = True
    unit: str = "mm"

    @classmethod
    def of(cls, feature: Feature, where: str) -> "DepthCode":
        """FoundryError where the numbers have no sense."""
        info = feature.info or {}
        names = ("depth_min", "depth_max", "shift", "use_log")
        stated: dict[str, Any] = {n: info[f"video.{n}"] for n in names if f"video.{n}" in info}
        if "depth_unit" in info:
            stated["unit"] = info["depth_unit"]
        code: DepthCode = validate(cls, stated, where)
        if code.unit not in UNITS or not -code.shift < code.depth_min < code.depth_max:
            raise FoundryError(f"{where}: no depth can be coded by {stated}", "mend info.json")
        return code

    def metres(self, codes: np.ndarray) -> np.ndarray:
        """uint16 [H, W] → float32 [H, W]."""
        share = codes.astype(np.float64) / _CODES
        low, high = self.depth_min, self.depth_max
        if not self.use_log:
            return (low + share * (high - low)).astype(np.float32)
        low, high = np.log(low + self.shift), np.log(high + self.shift)
        return (np.exp(low + share * (high - low)) - self.shift).astype(np.float32)


def stored_pictures(rows: EpisodeRows, camera: str) -> Frames[bytes]:
    """Image files out of the table, as they are; nothing of a camera that nobody asks for."""
    column = cache(lambda: rows.read([camera])[camera].combine_chunks())

    def read(step: int) -> bytes:
        where = f"{rows.path}: {camera!r} at step {step}"
        cell = column()[step].as_py()
        data = cell.get("bytes") if isinstance(cell, dict) else cell
        if not isinstance(data, bytes):
            raise UnusableEpisode(f"{where} holds no bytes", "pictures outside are not read")
        try:
            image_size(data, where)
        except FoundryError as error:
            raise UnusableEpisode(error.message, error.hint) from error
        return data

    return Frames(rows.length, read)


def stored_depth(rows: EpisodeRows, camera: str, code: DepthCode) -> Frames[np.ndarray]:
    """Images (TIFF) of depth out of the table."""
    files, metres = stored_pictures(rows, camera), UNITS[code.unit][1]

    def read(step: int) -> np.ndarray:
        try:
            with Image.open(io.BytesIO(files[step])) as picture:
                return (np.asarray(picture) * metres).astype(np.float32)
        except (OSError, ValueError, SyntaxError) as error:
            raise UnusableEpisode(
                f"{rows.path}: {camera!r} at step {step} is not readable depth: {error}",
                "remove the episode",
            ) from error

    return Frames(rows.length, read)


def filmed(
    locate: Callable[[], tuple[Path, float]],
    camera: str,
    times: np.ndarray,
    tolerance: float,
    code: DepthCode | None,
) -> Frames[np.ndarray]:
    """Frames of a video. locate: its file, and when the episode begins in it. times: float32 [L],
    seconds from there. code: of depth."""

    @cache
    def opened() -> tuple[VideoReader, float]:
        file, start = locate()
        check_file(file)
        return VideoReader(file, "gray12le" if code else "rgb24"), start

    def read(step: int) -> np.ndarray:
        try:
            video, start = opened()
            # What rounding to float32 took from a long episode's times is no fault of the video.
            allowed = tolerance + float(np.spacing(np.float32(times[step])))
            frame = video.at(start + float(times[step]), allowed)
        except FoundryError as error:
            raise UnusableEpisode(
                f"camera {camera!r} at step {step}: {error.message}", error.hint
            ) from error
        return code.metres(frame) if code else frame

    return Frames(len(times), read)
