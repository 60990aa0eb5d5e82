"""EXIF's eight orientations: a picture is what a viewer shows, in every format that holds files."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from foundry_core.data.config import ImageConfig
from foundry_core.data.convert.robot_samples import _image
from foundry_core.data.images import decode_image, decode_into, image_size
from foundry_core.data.robot.episodes import UnusableEpisode
from tests.data.poison.conversion import convert
from tests.data.poison.poison_sets import READERS, STEP, VICTIM, good
from tests.data.poison.poisons import pictures, saved

PIXELS = np.zeros((16, 24, 3), np.uint8)
PIXELS[:8, :8], PIXELS[8:, 16:] = (255, 0, 0), (0, 0, 255)


def turned(kind: str, how: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = how
    return saved(PIXELS, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))


def viewed(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(ImageOps.exif_transpose(picture).convert("RGB")).astype(int)


@pytest.mark.parametrize("how", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_a_picture_is_what_a_viewer_shows(kind, how):
    data = turned(kind, how)
    pixels = decode_image(data)
    wanted = viewed(data)
    assert pixels.shape == wanted.shape == (*image_size(data, "x"), 3)
    assert np.abs(pixels - wanted).max() < 8
    out = np.empty(pixels.shape, np.uint8)
    assert decode_into(data, out, "x") and (out == pixels).all()


@pytest.mark.parametrize("how", range(1, 9))
@pytest.mark.parametrize("format_", ["lerobot", "aloha", "mcap", "img2dataset"])
def test_shards_hold_it_upright(tmp_path, format_, how):
    """An upright JPEG keeps its bytes; another is stored as it is to be seen."""
    reader, items = READERS[format_], [good(number) for number in range(3)]
    file = turned("JPEG", how)
    items[VICTIM] = pictures(lambda _: file)(items[VICTIM])
    reader.write(tmp_path / "raw", items)
    found = convert(reader, tmp_path / "raw", tmp_path / "out", 0)
    marks = (f"ep_{VICTIM}", f"episode_{VICTIM:06d}")
    key = next(key for key in found.samples if any(mark in key for mark in marks))
    name = f"front_{STEP:06d}.jpg" if reader.is_robot else "jpg"
    stored = found.samples[key][name]
    assert (stored == file) == (how == 1)
    with Image.open(io.BytesIO(stored)) as picture:
        plain = np.asarray(picture).astype(int)
    assert np.abs(plain - viewed(file)).max() < 20


def test_intrinsics_of_a_turned_picture_are_refused():
    config, matrix = ImageConfig(), np.eye(3)
    assert _image(turned("JPEG", 1), config, 0, matrix, "x")[0] == turned("JPEG", 1)
    with pytest.raises(UnusableEpisode, match=r"EXIF orientation 6\), and there are intrinsics"):
        _image(turned("JPEG", 6), config, 0, matrix, "x")
