"""Image geometry with intrinsics that follow, and the JPEG codec of the shards.

Images are uint8 [H, W, 3]; depth is [H, W]. Intrinsics are K [3, 3] with (0, 0) at the image's
corner, so that scaling the image scales cx, cy with it. Sizes are (height, width).

Files come from anybody. Sizes are checked before memory is taken, few formats are opened, PNG files
by their checksums (a flipped bit of their pixels would be decoded); and a picture is what a viewer
shows: EXIF's orientation is applied wherever one is decoded.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import simplejpeg
from PIL import Image

from foundry_core.errors import FoundryError

MAX_PIXELS = 1 << 26
"""Of one picture: what claims more is refused before memory is taken for it."""

_JPEG = b"\xff\xd8"
_PNG = b"\x89PNG\r\n\x1a\n"
# Pillow opens formats, too, that start other programs.
_FORMATS = ("PNG", "WEBP", "BMP", "GIF", "TIFF", "JPEG")
# Modes of more than 8 bits per channel: turned into RGB they would be clipped to white.
_WIDE = ("I", "F")
_ORIENTATION = 0x0112
UPRIGHT = 1
"""EXIF's orientation of a picture that is to be seen as it is stored."""


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
    """An image file → uint8 [H, W, 3] as it is to be seen; grey and transparent ones in colour. A
    broken one, one of more than MAX_PIXELS, or of more than 8 bits is a FoundryError naming
    `where`."""
    image_size(data, where)
    with _readable(where):
        if data[:2] == _JPEG:
            pixels = simplejpeg.decode_jpeg(data, colorspace="RGB")
        else:
            _check_png(data)
            with _opened(data) as picture:
                if picture.mode.startswith(_WIDE):
                    raise ValueError(f"{picture.mode} holds more than 8 bits per channel")
                pixels = np.asarray(picture.convert("RGB"))
        return upright(pixels, orientation(data))


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
    if data[:2] == _JPEG and orientation(data) == UPRIGHT:
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


def check_jpeg(data: bytes | memoryview, where: str) -> None:
    """FoundryError where a JPEG file does not decode without a complaint, in half the time of
    decoding it: every code is read, at an eighth of the size in grey."""
    image_size(data, where)
    with _readable(where):
        simplejpeg.decode_jpeg(
            data, colorspace="GRAY", fastdct=True, min_height=1, min_width=1, min_factor=8
        )


def image_size(data: bytes | memoryview, where: str) -> tuple[int, int]:
    """(height, width) of an image file as it is to be seen, from its header; at most MAX_PIXELS."""
    with _readable(where):
        if data[:2] == _JPEG:
            height, width = simplejpeg.decode_jpeg_header(data)[:2]
        else:
            with _opened(data) as picture:
                height, width = picture.height, picture.width
        turned = orientation(data) > 4
    if height * width > MAX_PIXELS:
        raise FoundryError(
            f"{where} claims {height} x {width} pixels, at most {MAX_PIXELS} are read",
            "shrink it, or remove it",
        )
    return (width, height) if turned else (height, width)


def orientation(data: bytes | memoryview) -> int:
    """EXIF's 1 to 8: how a stored picture is to be turned and mirrored to be seen. 1, as it is,
    where the file says nothing of sense."""
    if data[:2] == _JPEG:
        return _jpeg_orientation(data)
    if not _may_have_exif(data):
        return UPRIGHT
    try:
        with _opened(data) as picture:
            found = picture.getexif().get(_ORIENTATION, UPRIGHT)
    except (ValueError, OSError, SyntaxError, LookupError, TypeError, struct.error):
        return UPRIGHT
    return found if isinstance(found, int) and 1 <= found <= 8 else UPRIGHT


def _may_have_exif(data: bytes | memoryview) -> bool:
    """Of TIFF, Pillow turns the pixels itself; looking into others costs opening them."""
    kind = image_format(data)
    return kind in ("png", "webp") and {"png": b"eXIf", "webp": b"EXIF"}[kind] in bytes(data)


def upright(pixels: np.ndarray, how: int) -> np.ndarray:
    """Pixels [H, W, ...] as an orientation means them to be seen."""
    if how > 4:
        pixels = np.swapaxes(pixels, 0, 1)
    rows = -1 if how in (3, 4, 7, 8) else 1
    columns = -1 if how in (2, 3, 6, 7) else 1
    return pixels if how == UPRIGHT else np.ascontiguousarray(pixels[::rows, ::columns])


def _jpeg_orientation(data: bytes | memoryview) -> int:
    """From the segments before the picture itself: marker, u16 length with itself, content."""
    at = 2
    while at + 10 <= len(data) and data[at] == 0xFF and 0xE0 <= data[at + 1] <= 0xEF:
        size = int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] == 0xE1 and bytes(data[at + 4 : at + 10]) == b"Exif\0\0":
            return _tiff_orientation(bytes(data[at + 10 : at + 2 + size]))
        at += 2 + size
    return UPRIGHT


def _tiff_orientation(block: bytes) -> int:
    """Of an EXIF block: a TIFF header, then a list of u16 tag, u16 type, u32 count, value."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None or len(block) < 8:
        return UPRIGHT
    (start,) = struct.unpack_from(f"{order}I", block, 4)
    if start + 2 > len(block):
        return UPRIGHT
    (count,) = struct.unpack_from(f"{order}H", block, start)
    for at in range(start + 2, min(start + 2 + 12 * count, len(block) - 11), 12):
        tag, kind, _, value = struct.unpack_from(f"{order}HHIH", block, at)
        if tag == _ORIENTATION:
            return value if kind == 3 and 1 <= value <= 8 else UPRIGHT
    return UPRIGHT


def _check_png(data: bytes | memoryview) -> None:
    """ValueError where a chunk (u32 length, type, content, CRC) is damaged; Pillow does not look at
    the checksums of pixels."""
    if bytes(data[:8]) != _PNG:
        return
    view, at, kind = memoryview(data), 8, b""
    while kind != b"IEND":
        if at + 12 > len(view):
            raise ValueError("it is cut short")
        size = int.from_bytes(view[at : at + 4], "big")
        kind, end = bytes(view[at + 4 : at + 8]), at + 12 + size
        if end > len(view) or zlib.crc32(view[at + 4 : end - 4]) != int.from_bytes(
            view[end - 4 : end], "big"
        ):
            raise ValueError(f"its chunk {kind!r} at byte {at} fails its checksum")
        at = end


def _opened(data: bytes | memoryview) -> Image.Image:
    return Image.open(io.BytesIO(data), formats=_FORMATS)


@contextmanager
def _readable(where: str) -> Iterator[None]:
    """What decoders raise over damaged data, one of few words of their own, is one FoundryError."""
    try:
        yield
    except FoundryError:
        raise
    except (
        ArithmeticError, EOFError, LookupError, MemoryError, OSError, RuntimeError, SyntaxError,
        TypeError, ValueError, struct.error, Image.DecompressionBombError,
    ) as error:  # fmt: skip
        raise FoundryError(
            f"{where} is not a readable image: {error}", "fetch it again, or remove it"
        ) from error


def image_format(data: bytes | memoryview) -> str:
    """Extension by magic number: "jpg", "png", "webp", or "" for anything else."""
    head = bytes(data[:12])
    if head[:2] == _JPEG:
        return "jpg"
    if head[:8] == _PNG:
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
