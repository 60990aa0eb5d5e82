"""Arrays out of .npy and .npz bytes without copying them first, and .npz bytes of arrays.

np.load costs 50-100 us per array (it parses each header as Python and reads through a file
object); a window with a dozen fields would spend more on that than on its images. Headers repeat,
so they are parsed once each. Object arrays (pickles) are refused.
"""

import ast
import io
import struct
import zipfile
import zlib
from collections.abc import Collection, Mapping
from functools import lru_cache

import numpy as np

from foundry_core.errors import FoundryError

_EPOCH = (1980, 1, 1, 0, 0, 0)
_END, _CENTRAL, _LOCAL = b"PK\x05\x06", b"PK\x01\x02", b"PK\x03\x04"


def read_npy(data: bytes | memoryview) -> np.ndarray:
    """Read-only view of the array in .npy bytes."""
    if bytes(data[:6]) != b"\x93NUMPY":
        raise FoundryError("not a .npy array")
    long = data[6] > 1
    start = 12 if long else 10
    size = int.from_bytes(data[8:start], "little")
    dtype, shape, fortran = _header(bytes(data[start : start + size]))
    count = int(np.prod(shape, dtype=np.int64))
    try:
        flat = np.frombuffer(data, dtype=dtype, count=count, offset=start + size)
    except ValueError as error:
        raise FoundryError(f"a truncated .npy array: {error}") from error
    return flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)


def read_npz(
    data: bytes | memoryview, names: Collection[str] | None = None
) -> dict[str, np.ndarray]:
    """{name: array} of .npz bytes; only `names` where given, absent ones left out."""
    data = memoryview(data)
    arrays: dict[str, np.ndarray] = {}
    try:
        for name, method, packed, offset in _entries(data):
            if names is not None and name not in names:
                continue
            if bytes(data[offset : offset + 4]) != _LOCAL:
                raise FoundryError(f"array {name!r} is not where the .npz says")
            name_size, extra_size = struct.unpack_from("<HH", data, offset + 26)
            start = offset + 30 + name_size + extra_size
            content: bytes | memoryview = data[start : start + packed]
            if method == 8:
                content = zlib.decompress(content, wbits=-15)
            elif method != 0:
                raise FoundryError(f"array {name!r} is packed by an unknown method {method}")
            arrays[name] = read_npy(content)
    except (struct.error, zlib.error, IndexError) as error:
        raise FoundryError(f"a damaged .npz: {error}") from error
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


def _entries(data: memoryview) -> list[tuple[str, int, int, int]]:
    """(array name, method, packed size, local header offset) of the central directory."""
    ending = bytes(data[-66000:])
    end = ending.rfind(_END)
    if end < 0:
        raise FoundryError("not an .npz (no end of directory): truncated?")
    count, _, at = struct.unpack_from("<HII", ending, end + 10)
    entries = []
    for _ in range(count):
        if bytes(data[at : at + 4]) != _CENTRAL:
            raise FoundryError("a damaged .npz directory")
        method, packed = struct.unpack_from("<H8xI", data, at + 10)
        name_size, extra_size, comment_size = struct.unpack_from("<HHH", data, at + 28)
        (offset,) = struct.unpack_from("<I", data, at + 42)
        name = bytes(data[at + 46 : at + 46 + name_size]).decode()
        if 0xFFFFFFFF in (packed, offset):
            raise FoundryError(f"array {name!r} of an .npz exceeds 4 GiB")
        entries.append((name.removesuffix(".npy"), method, packed, offset))
        at += 46 + name_size + extra_size + comment_size
    return entries


@lru_cache(maxsize=4096)
def _header(text: bytes) -> tuple[np.dtype, tuple[int, ...], bool]:
    try:
        header = ast.literal_eval(text.decode("latin1").strip())
        dtype, shape = np.dtype(header["descr"]), tuple(header["shape"])
    except (ValueError, SyntaxError, KeyError, TypeError) as error:
        raise FoundryError(f"a damaged .npy header: {error}") from error
    if dtype.hasobject:
        raise FoundryError("a .npy array of Python objects (pickled) is refused")
    return dtype, shape, bool(header["fortran_order"])
