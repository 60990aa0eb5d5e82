"""Image geometry with intrinsics that follow, and the JPEG codec of the shards.

Images are uint8 [H, W, 3]; depth is [H, W]. Intrinsics are K [3, 3] with (0, 0) at the image's
corner, so that scaling the image scales cx, cy with it. Sizes are (height, width).
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import simplejpeg
from PIL import Image

from foundry_core.errors import FoundryError

MAX_PIXELS = 1 << 26
"""Of one picture: what claims more is refused before memory is taken for it."""

_JPEG = b"\xff\xd8"


def transform(
    image: np.ndarray,
    size: tuple[int, int],
    method: str,
    intrinsics: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """(image, K) brought to `size`: "center_crop" fills and cuts, "resize_no_crop" stretches,
    "resize_fit" letterboxes in black. Colour is resampled by Lanczos."""
    height, width = image.shape[:2]
    matrix = transform_matrix((height, width), size, method)
    moved = None if intrinsics is None else matrix @ intrinsics
    if (height, width) == tuple(size):
        return image, moved
    if method == "resize_fit":
        return _letterbox(image, size, Image.Resampling.LANCZOS), moved
    box = _source_box(matrix, (height, width), size)
    picture = Image.fromarray(image)
    resized = picture.resize((size[1], size[0]), Image.Resampling.LANCZOS, box=box)
    return np.asarray(resized), moved


def transform_depth(depth: np.ndarray, size: tuple[int, int], method: str) -> np.ndarray:
    """Depth [H, W] brought to `size` by nearest neighbour: an average of two depths across an edge
    is a surface that does not exist."""
    height, width = depth.shape
    inverse = np.linalg.inv(transform_matrix((height, width), size, method))
    rows = np.floor((np.arange(size[0]) + 0.5) * inverse[1, 1] + inverse[1, 2]).astype(int)
    columns = np.floor((np.arange(size[1]) + 0.5) * inverse[0, 0] + inverse[0, 2]).astype(int)
    out = depth[np.clip(rows, 0, height - 1)][:, np.clip(columns, 0, width - 1)]
    out[(rows < 0) | (rows >= height), :] = 0
    out[:, (columns < 0) | (columns >= width)] = 0
    return out


def transform_matrix(source: tuple[int, int], target: tuple[int, int], method: str) -> np.ndarray:
    """3x3 map of pixel coordinates (x, y, 1) from source to target image; K' = M K."""
    (height, width), (new_height, new_width) = source, target
    if method == "resize_no_crop":
        return np.diag([new_width / width, new_height / height, 1.0])
    matrix = np.eye(3)
    if method == "center_crop":
        scale = max(new_width / width, new_height / height)
        matrix[0, 0] = matrix[1, 1] = scale
        matrix[0, 2] = (new_width - width * scale) / 2
        matrix[1, 2] = (new_height - height * scale) / 2
        return matrix
    if method == "resize_fit":
        inner_height, inner_width, top, left = _fit(source, target)
        matrix[0, 0], matrix[1, 1] = inner_width / width, inner_height / height
        matrix[0, 2], matrix[1, 2] = left, top
        return matrix
    raise FoundryError(
        f"unknown image method {method!r}", "one of center_crop, resize_no_crop, resize_fit"
    )


def rotate(
    image: np.ndarray, degrees: int, intrinsics: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """(image, K) turned counter-clockwise by a multiple of 90 degrees."""
    if degrees % 90:
        raise FoundryError(f"camera rotation {degrees} is not a multiple of 90 degrees")
    turns = degrees // 90 % 4
    turned = np.ascontiguousarray(np.rot90(image, turns))
    if intrinsics is None:
        return turned, None
    for turn in range(turns):
        width = image.shape[1 - turn % 2]
        fx, fy, cx, cy = (intrinsics[i] for i in ((0, 0), (1, 1), (0, 2), (1, 2)))
        intrinsics = np.array([[fy, 0.0, cy], [0.0, fx, width - cx], [0.0, 0.0, 1.0]])
    return turned, intrinsics


def encode_jpeg(image: np.ndarray, quality: int) -> bytes:
    """uint8 [H, W, 3] → JPEG without chroma subsampling (small objects are few pixels wide)."""
    return simplejpeg.encode_jpeg(
        np.ascontiguousarray(image), quality=quality, colorspace="RGB", colorsubsampling="444"
    )


def decode_image(data: bytes | memoryview, where: str = "image") -> np.ndarray:
    """Any image file → uint8 [H, W, 3]. A broken one, or one of more than MAX_PIXELS, is a
    FoundryError naming `where`."""
    image_size(data, where)
    with _readable(where):
        if data[:2] == _JPEG:
            return simplejpeg.decode_jpeg(data, colorspace="RGB")
        with Image.open(io.BytesIO(data)) as picture:
            return np.asarray(picture.convert("RGB"))


def encode_depth(counts: np.ndarray) -> bytes:
    """uint16 [H, W] → PNG of 16 bits."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(counts)).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def is_depth(data: bytes | memoryview) -> bool:
    """Whether a file is a PNG of one channel of 16 bits."""
    return image_format(data) == "png" and bytes(data[24:26]) == b"\x10\x00"


def decode_depth(data: bytes | memoryview, where: str) -> np.ndarray:
    """PNG of 16 bits → uint16 [H, W]. FoundryError naming `where` for anything else."""
    if not is_depth(data):
        raise FoundryError(f"{where} is no PNG of one channel of 16 bits", "convert it again")
    image_size(data, where)
    with _readable(where), Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture).astype(np.uint16)


def decode_into(data: bytes | memoryview, out: np.ndarray, where: str) -> bool:
    """The pixels of `decode_image` into `out` (contiguous uint8 [H, W, 3]); False, with `out`
    undefined, where the image has another size."""
    if data[:2] == _JPEG:
        if image_size(data, where) != out.shape[:2]:
            return False
        with _readable(where):
            simplejpeg.decode_jpeg(data, colorspace="RGB", buffer=out)
        return True
    image = decode_image(data, where)
    if image.shape != out.shape:
        return False
    out[...] = image
    return True


def image_size(data: bytes | memoryview, where: str) -> tuple[int, int]:
    """(height, width) of an image file, from its header; at most MAX_PIXELS."""
    with _readable(where):
        if data[:2] == _JPEG:
            height, width = simplejpeg.decode_jpeg_header(data)[:2]
        else:
            with Image.open(io.BytesIO(data)) as picture:
                height, width = picture.height, picture.width
    if height * width > MAX_PIXELS:
        raise FoundryError(
            f"{where} claims {height} x {width} pixels, at most {MAX_PIXELS} are read",
            "shrink it, or remove it",
        )
    return height, width


@contextmanager
def _readable(where: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise FoundryError(f"{where} is not a readable image: {error}") from error


def image_format(data: bytes | memoryview) -> str:
    """Extension by magic number: "jpg", "png", "webp", or "" for anything else."""
    head = bytes(data[:12])
    if head[:2] == _JPEG:
        return "jpg"
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        return "png"
    return "webp" if head[:4] == b"RIFF" and head[8:12] == b"WEBP" else ""


def _source_box(
    matrix: np.ndarray, source: tuple[int, int], target: tuple[int, int]
) -> tuple[float, float, float, float]:
    """The exact source rectangle that fills the target: no rounding of an intermediate size.
    Clamped, since PIL refuses a box that is outside by a rounding error."""
    left, top = -matrix[0, 2] / matrix[0, 0], -matrix[1, 2] / matrix[1, 1]
    right, bottom = left + target[1] / matrix[0, 0], top + target[0] / matrix[1, 1]
    return max(0.0, left), max(0.0, top), min(source[1], right), min(source[0], bottom)


def _fit(source: tuple[int, int], target: tuple[int, int]) -> tuple[int, int, int, int]:
    """(inner height, inner width, top, left) of the letterboxed picture, in whole pixels."""
    scale = min(target[0] / source[0], target[1] / source[1])
    height = max(1, round(source[0] * scale))
    width = max(1, round(source[1] * scale))
    return height, width, (target[0] - height) // 2, (target[1] - width) // 2


def _letterbox(image: np.ndarray, size: tuple[int, int], filter_: int) -> np.ndarray:
    height, width, top, left = _fit(image.shape[:2], size)
    inner = Image.fromarray(image).resize((width, height), filter_)
    out = np.zeros((*size, image.shape[2]), dtype=image.dtype)
    out[top : top + height, left : left + width] = np.asarray(inner)
    return out
