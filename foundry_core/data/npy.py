"""Arrays out of .npy and .npz bytes without copying them first, and .npz bytes of arrays.

np.load costs 50-100 us per array (it parses each header as Python and reads through a file
object); a window with a dozen fields would spend more on that than on its images. Headers repeat,
so they are parsed once each. Object arrays (pickles) are refused.
"""

import ast
import io
import math
import struct
import zipfile
import zlib
from collections.abc import Collection, Mapping
from functools import lru_cache

import numpy as np

from foundry_core.errors import FoundryError

MAX_HEADER = 1 << 16
# Deflate makes at most 1032 bytes of one.
_MAX_RATIO = 1032
_AGAIN = "fetch or write it again"
_EPOCH = (1980, 1, 1, 0, 0, 0)
_END, _CENTRAL, _LOCAL = b"PK\x05\x06", b"PK\x01\x02", b"PK\x03\x04"


def read_npy(data: bytes | memoryview) -> np.ndarray:
    """Read-only view of the array in .npy bytes."""
    dtype, shape, fortran, start = npy_header(data)
    try:
        flat = np.frombuffer(data, dtype=dtype, count=math.prod(shape), offset=start)
        return flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)
    except (ValueError, OverflowError) as error:
        raise FoundryError(f"a truncated .npy array: {error}", _AGAIN) from error


def npy_header(data: bytes | memoryview) -> tuple[np.dtype, tuple[int, ...], bool, int]:
    """(dtype, shape, in Fortran's order, where the values begin) of .npy bytes, of which the first
    few thousand are enough. FoundryError for Python objects, and for what is no array."""
    if bytes(data[:6]) != b"\x93NUMPY" or len(data) < 12:
        raise FoundryError("not a .npy array", _AGAIN)
    start = 12 if data[6] > 1 else 10
    size = int.from_bytes(data[8:start], "little")
    if size > MAX_HEADER:
        raise FoundryError(f"a .npy header of {size} bytes, at most {MAX_HEADER} are read", _AGAIN)
    return *_header(bytes(data[start : start + size])), start + size


def read_npz(
    data: bytes | memoryview, names: Collection[str] | None = None
) -> dict[str, np.ndarray]:
    """{name: array} of .npz bytes; only `names` where given, absent ones left out."""
    data = memoryview(data)
    arrays: dict[str, np.ndarray] = {}
    try:
        for name, method, packed, size, offset in _entries(data):
            if names is not None and name not in names:
                continue
            if bytes(data[offset : offset + 4]) != _LOCAL:
                raise FoundryError(f"array {name!r} is not where the .npz says")
            name_size, extra_size = struct.unpack_from("<HH", data, offset + 26)
            start = offset + 30 + name_size + extra_size
            content: bytes | memoryview = data[start : start + packed]
            if method == 8:
                content = _inflated(content, size, name)
            elif method != 0:
                raise FoundryError(f"array {name!r} is packed by an unknown method {method}")
            arrays[name] = read_npy(content)
    except (struct.error, zlib.error, IndexError, UnicodeDecodeError) as error:
        raise FoundryError(f"a damaged .npz: {error}", _AGAIN) from error
    return arrays


def write_npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    """An uncompressed .npz whose bytes depend on the arrays alone (np.savez stamps the time)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(arrays):
            member = io.BytesIO()
            np.lib.format.write_array(
                member, np.ascontiguousarray(arrays[name]), allow_pickle=False
            )
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", _EPOCH), member.getvalue())
    return buffer.getvalue()


def _inflated(content: bytes | memoryview, size: int, name: str) -> bytes:
    """Exactly `size` bytes: no more memory is taken than the directory says, and that is bounded
    by what deflate can do."""
    if size > len(content) * _MAX_RATIO + 64:
        raise FoundryError(f"array {name!r} cannot unpack to {size} bytes", _AGAIN)
    unpacked = zlib.decompressobj(wbits=-15).decompress(content, size + 1)
    if len(unpacked) != size:
        raise FoundryError(f"array {name!r} does not unpack to {size} bytes", _AGAIN)
    return unpacked


def _entries(data: memoryview) -> list[tuple[str, int, int, int, int]]:
    """(array name, method, packed size, size, local header offset) of the central directory."""
    ending = bytes(data[-66000:])
    end = ending.rfind(_END)
    if end < 0:
        raise FoundryError("not an .npz (no end of directory): truncated?")
    count, _, at = struct.unpack_from("<HII", ending, end + 10)
    entries = []
    for _ in range(count):
        if bytes(data[at : at + 4]) != _CENTRAL:
            raise FoundryError("a damaged .npz directory")
        method, packed, size = struct.unpack_from("<H8xII", data, at + 10)
        name_size, extra_size, comment_size = struct.unpack_from("<HHH", data, at + 28)
        (offset,) = struct.unpack_from("<I", data, at + 42)
        name = bytes(data[at + 46 : at + 46 + name_size]).decode()
        if 0xFFFFFFFF in (packed, size, offset):
            raise FoundryError(f"array {name!r} of an .npz exceeds 4 GiB")
        entries.append((name.removesuffix(".npy"), method, packed, size, offset))
        at += 46 + name_size + extra_size + comment_size
    return entries


@lru_cache(maxsize=4096)
def _header(text: bytes) -> tuple[np.dtype, tuple[int, ...], bool]:
    try:
        header = ast.literal_eval(text.decode("latin1").strip())
        dtype, shape = np.dtype(header["descr"]), tuple(header["shape"])
        fortran = bool(header["fortran_order"])
    # SyntaxWarnings and C stacks of nested brackets end as one of these, too.
    except (
        ValueError, SyntaxError, LookupError, TypeError, RecursionError, MemoryError,
        AttributeError, OverflowError,
    ) as error:  # fmt: skip
        raise FoundryError(f"a damaged .npy header: {error}", _AGAIN) from error
    if dtype.hasobject:
        raise FoundryError("a .npy array of Python objects (pickled) is refused", "store numbers")
    if not all(type(size) is int and size >= 0 for size in shape) or dtype.itemsize == 0:
        raise FoundryError(f"a .npy array of shape {shape} and type {dtype}", _AGAIN)
    return dtype, shape, fortran
