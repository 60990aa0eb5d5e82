"""Arrays over the steps of an episode, out of files that nobody vouches for."""

import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from foundry_core.data.contract.fields import UNITS
from foundry_core.data.robot.episodes import UnusableEpisode

# More values per step than this are no low-dimensional field (depth, point clouds): left out.
MAX_DIMS = 4096
# Bytes that one field, one run of steps that are packed together, one picture may take in memory.
MAX_FIELD = 1 << 28
MAX_CHUNK = 1 << 30
MAX_PICTURE = 1 << 26
_HINT = "fetch or record it again"


@contextmanager
def readable(where: str) -> Iterator[None]:
    """What libraries raise over damaged data is an UnusableEpisode that says where."""
    try:
        yield
    except (
        ArithmeticError, EOFError, LookupError, MemoryError, OSError, RuntimeError, TypeError,
        ValueError, zipfile.BadZipFile, zlib.error,
    ) as error:  # fmt: skip
        raise UnusableEpisode(f"{where} is not readable: {error}", _HINT) from error


def check_file(path: Path) -> None:
    """UnusableEpisode for what is no regular file, or is not there: opening a pipe would wait."""
    if not path.is_file():
        what = "is no file" if path.exists() or path.is_symlink() else "is not there"
        raise UnusableEpisode(f"{path} {what}", _HINT)


def is_pictures(shape: Sequence[int], dtype: np.dtype) -> bool:
    """[L, H, W, 3] of bytes, or of floats (as in Push-T)."""
    return len(shape) == 4 and shape[3] == 3 and (dtype == np.uint8 or dtype.kind == "f")


def is_depth(path: str, shape: Sequence[int], dtype: np.dtype) -> bool:
    """[L, H, W] or [L, H, W, 1] of 16-bit counts or floats, where the name says that it is depth:
    masks look alike."""
    picture = len(shape) == 3 or (len(shape) == 4 and shape[3] == 1)
    named = "depth" in path.rpartition("/")[2].lower()
    return named and picture and min(shape[1:3]) > 1 and (dtype == np.uint16 or dtype.kind == "f")


def metres(values: np.ndarray, unit: str | None) -> np.ndarray:
    """One depth picture as float32 [H, W]. unit: of the numbers; null: of floats metres, of whole
    numbers millimetres, as depth cameras deliver them."""
    unit = unit or ("m" if values.dtype.kind == "f" else "mm")
    scaled = values.astype(np.float64) * UNITS[unit][1]
    return scaled.reshape(values.shape[:2]).astype(np.float32)


def is_lowdim(shape: Sequence[int]) -> bool:
    return len(shape) > 0 and math.prod(shape[1:]) <= MAX_DIMS


def check_numbers(dtype: np.dtype, where: str) -> None:
    """Raises UnusableEpisode for text, Python objects and records."""
    if dtype.kind not in "fiub" or dtype.itemsize > 8:
        raise UnusableEpisode(
            f"{where} holds {dtype}, not numbers", "only plain numbers are read from recordings"
        )


def check_bytes(shape: Sequence[int], dtype: np.dtype, limit: int, where: str) -> None:
    """Before anything is allocated: UnusableEpisode for what is larger than `limit`."""
    size = math.prod(int(one) for one in shape) * dtype.itemsize
    if size > limit:
        raise UnusableEpisode(f"{where} takes {size:,} bytes, more than {limit:,}", _HINT)


def lowdim(values: np.ndarray) -> np.ndarray:
    """[L, ...] of numbers → [L, D]: floats as stored, whole numbers and truth values as float64."""
    dtype = values.dtype.newbyteorder("=") if values.dtype.kind == "f" else np.float64
    size = math.prod(values.shape[1:])
    return np.ascontiguousarray(values, dtype=dtype).reshape(len(values), size)


def picture(values: np.ndarray, where: str) -> np.ndarray:
    """uint8 [H, W, 3]. Raises UnusableEpisode for floats that are no whole numbers 0..255."""
    if values.dtype == np.uint8:
        return values
    with np.errstate(invalid="ignore"):
        pixels = values.astype(np.uint8)
    if not np.array_equal(pixels, values):
        raise UnusableEpisode(
            f"{where}: floats that are no whole numbers from 0 to 255",
            "store pictures as bytes",
        )
    return pixels


def check_steps(where: str, *held: Mapping[str, Sized]) -> None:
    """UnusableEpisode where fields and cameras have no steps, or not all the same number."""
    lengths = {name: len(one) for group in held for name, one in group.items()}
    if not any(lengths.values()):
        raise UnusableEpisode(f"{where} has no steps", "remove it, or raise max_skipped")
    first, length = next(iter(lengths.items()))
    for name, other in lengths.items():
        if other != length:
            raise UnusableEpisode(
                f"{where}: {name!r} has {other} steps, {first!r} has {length}", _HINT
            )
