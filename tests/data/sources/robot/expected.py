"""What the original readers gave for the shared recordings: expected.json, arrays.npz."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from foundry_core.data.images import decode_image
from foundry_core.data.robot.episodes import Episode


@dataclass
class Expected:
    folder: Path
    document: dict[str, Any]
    arrays: dict[str, np.ndarray]

    def check(self, found: list[Episode], *, tolerance: float = 0.0, flipped: bool = False) -> None:
        """Low-dimensional values to the bit; pictures to the bit, or by their means' distance in
        grey levels where they are compressed. flipped: codes were read upside down."""
        assert len(found) == len(self.document["episodes"])
        for episode, wanted in zip(found, self.document["episodes"], strict=True):
            assert episode.length == wanted["length"]
            self._check_lowdim(episode, wanted["key"])
            for camera, steps in wanted["images"].items():
                assert len(episode.images[camera]) == wanted["length"]
                for step, facts in steps.items():
                    pixels = decoded(episode.images[camera][int(step)])
                    assert list(pixels.shape) == facts["shape"]
                    means = pixels.reshape(-1, 3).mean(axis=0)
                    assert np.abs(means - facts["mean"]).max() <= tolerance
                    assert code(pixels[::-1] if flipped else pixels) == facts["code"]
                    if "sha256_pixels" in facts:
                        digest = hashlib.sha256(np.ascontiguousarray(pixels)).hexdigest()
                        assert digest == facts["sha256_pixels"]

    def _check_lowdim(self, episode: Episode, key: str) -> None:
        wanted = {
            name.partition("|")[2]: values
            for name, values in self.arrays.items()
            if name.startswith(f"{key}|")
        }
        assert set(episode.lowdim) == set(wanted)
        for name, values in wanted.items():
            got = episode.lowdim[name]
            flat = values.reshape(len(values), -1)
            if flat.dtype.kind != "f":
                flat = flat.astype(np.float64)
            assert got.dtype == flat.dtype, name
            assert got.tobytes() == flat.tobytes(), name


def expected(shared_data: Path, name: str) -> Expected:
    folder = shared_data / "formats" / name
    if not folder.is_dir():
        pytest.skip(f"no recordings in {folder}")
    with np.load(folder / "arrays.npz") as arrays:
        return Expected(
            folder, json.loads((folder / "expected.json").read_text()), dict(arrays.items())
        )


def decoded(picture: bytes | np.ndarray) -> np.ndarray:
    return decode_image(picture) if isinstance(picture, bytes) else picture


def code(pixels: np.ndarray) -> list[int]:
    """Three digits as grey squares (20 + 22 digit) at the top left."""
    side = 8 if min(pixels.shape[:2]) < 64 else 16
    squares = [pixels[2 : side - 2, side * i + 2 : side * (i + 1) - 2].mean() for i in range(3)]
    return [round((grey - 20) / 22) for grey in squares]


def read_all(source: Any) -> list[Episode]:
    return [source.read_episode(ref) for ref in source.episodes()]
