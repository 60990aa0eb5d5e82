"""The images of a batch, decoded into the memory that the batch has.

Stacking images into samples and samples into batches moves every pixel twice, into memory that the
kernel has to zero first: that costs a third of what decoding them costs.
"""

import io
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import simplejpeg
from PIL import Image

from foundry_core.data.images import decode_image
from foundry_core.data.robot.transform_config import Augment, ImageInput
from foundry_core.errors import FoundryError

_JPEG = b"\xff\xd8"
# Shape → uint8 memory of that shape, to be filled.
OutputBuffer = Callable[[tuple[int, ...]], np.ndarray]


def new_buffer(shape: tuple[int, ...]) -> np.ndarray:
    """Memory outside any batch."""
    return np.empty(shape, dtype=np.uint8)


class BatchImages:
    """Memory for [rows, N, H, W, 3]; the first row that is asked for says what N, H and W are."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._pixels: np.ndarray | None = None

    def row(self, row: int) -> OutputBuffer:
        """Gives uint8 [N, H, W, 3] of the batch."""
        return partial(self._buffer, row)

    @property
    def images(self) -> np.ndarray | None:
        """uint8 [rows, N, 3, H, W], channels last in memory: most models want them so anyway. None
        where no row has images."""
        return None if self._pixels is None else self._pixels.transpose(0, 1, 4, 2, 3)

    def _buffer(self, row: int, shape: tuple[int, ...]) -> np.ndarray:
        if self._pixels is None:
            self._pixels = np.empty((self._rows, *shape), dtype=np.uint8)
        if self._pixels.shape[1:] != shape:
            raise FoundryError(
                f"images of one batch have different shapes: {self._pixels.shape[1:]} and {shape}",
                "set image.size to the (height, width) that the model takes",
            )
        return self._pixels[row]


def image_size(data: bytes | memoryview, where: str) -> tuple[int, int]:
    """(height, width) of an image file, from its header."""
    try:
        if data[:2] == _JPEG:
            height, width = simplejpeg.decode_jpeg_header(data)[:2]
            return height, width
        with Image.open(io.BytesIO(data)) as picture:
            return picture.height, picture.width
    except (ValueError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise FoundryError(f"{where} is not a readable image: {error}") from error


def decode_into(data: bytes | memoryview, out: np.ndarray, where: str) -> bool:
    """The pixels of `decode_image` into `out` (contiguous uint8 [H, W, 3]); False, with `out`
    undefined, where the image has another size."""
    if data[:2] == _JPEG:
        try:
            return simplejpeg.decode_jpeg(data, colorspace="RGB", buffer=out).shape == out.shape
        except ValueError as error:
            if image_size(data, where) != out.shape[:2]:  # the buffer was too small
                return False
            raise FoundryError(f"{where} is not a readable image: {error}") from error
    image = decode_image(data, where)
    if image.shape != out.shape:
        return False
    out[...] = image
    return True


def fill(files: Mapping[str, np.ndarray | memoryview], out: np.ndarray, where: str) -> bool:
    """Images by name, decoded before or not, into uint8 [N, H, W, 3]; False, with `out` undefined,
    where one of them has another size."""
    for pixels, (name, file) in zip(out, files.items(), strict=True):
        if isinstance(file, np.ndarray):
            if file.shape != pixels.shape:
                return False
            pixels[...] = file
        elif not decode_into(file, pixels, f"{name} of {where}"):
            return False
    return True


def changes_nothing(image: ImageInput, augment: Augment | None) -> bool:
    """Whether images of the right size go to the model as they were stored."""
    return image.crop == 1.0 and (augment is None or augment == Augment(scope=augment.scope))
