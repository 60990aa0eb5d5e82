"""Zarr format 2, a folder or a zip, read chunk by chunk.

The format is JSON and files; a reader of our own can say beforehand how large a chunk becomes,
opens no codec that runs code of the data's choice (pickle), and leaves no threads in workers.
"""

import importlib
import itertools
import json
import math
import re
import zipfile
import zlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from foundry_core.data.sources.robot.steps import MAX_CHUNK, check_bytes, readable
from foundry_core.errors import FoundryError
from foundry_core.files import signature

_METADATA = ".zarray"
_MAX_METADATA = 1 << 20
_NUMBERS = re.compile(r"[<>|][fiub][1248]")
_IMAGE_CODECS = ("jpegxl", "jpeg2k", "jpeg", "png")


class Store(Protocol):
    def read(self, name: str, limit: int) -> bytes | None:
        """The file of that name, None where there is none. ValueError for one over `limit`."""

    def names(self, folder: str) -> list[str]:
        """What lies directly below a folder."""


def open_store(path: Path) -> Store:
    """Raises UnusableEpisode for a zip that is none. Directories of zips are kept: those of UMI
    have one member per frame."""
    if path.is_dir():
        return _Folder(path)
    with readable(str(path)):
        return _zip(path, signature(path.stat()))


class _Folder:
    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, name: str, limit: int) -> bytes | None:
        path = self._path / name
        if not path.is_file() and (path.exists() or path.is_symlink()):
            raise ValueError(f"{name} is no file")
        try:
            with path.open("rb") as stream:
                return _within(stream.read(limit + 1), limit, name)
        except FileNotFoundError:
            return None

    def names(self, folder: str) -> list[str]:
        below = self._path / folder
        return sorted(one.name for one in below.iterdir()) if below.is_dir() else []


class _Zip:
    def __init__(self, path: Path) -> None:
        self._zip = zipfile.ZipFile(path)
        self._members = {name.strip("/") for name in self._zip.namelist()}

    def read(self, name: str, limit: int) -> bytes | None:
        if name not in self._members:
            return None
        with self._zip.open(name) as stream:
            return _within(stream.read(limit + 1), limit, name)

    def names(self, folder: str) -> list[str]:
        inside = (one[len(folder) + 1 :] for one in self._members if one.startswith(f"{folder}/"))
        return sorted({one.split("/")[0] for one in inside})


@lru_cache(maxsize=2)
def _zip(path: Path, signature: object) -> _Zip:
    return _Zip(path)


def _within(data: bytes, limit: int, name: str) -> bytes:
    if len(data) > limit:
        raise ValueError(f"{name} is larger than {limit:,} bytes")
    return data


def open_array(store: Store, name: str, where: str) -> "Array":
    """Raises UnusableEpisode for an array that is absent, of objects, or that this reader cannot
    take."""
    where = f"{where}: {name}"
    with readable(where):
        data = store.read(f"{name}/{_METADATA}", _MAX_METADATA)
        if data is None:
            if store.read(f"{name}/zarr.json", _MAX_METADATA) is not None:
                raise ValueError("Zarr format 3; replay buffers are of format 2")
            raise ValueError("there is no such array")
        meta = json.loads(data)
        if not _NUMBERS.fullmatch(str(meta["dtype"])):
            raise ValueError(f"values of type {meta['dtype']!r}, not plain numbers")
        if meta.get("filters"):
            raise ValueError(f"filters {[one.get('id') for one in meta['filters']]} are not read")
        shape, chunks = _sizes(meta["shape"], 0), _sizes(meta["chunks"], 1)
        if not shape or len(shape) != len(chunks):
            raise ValueError(f"shape {shape} in chunks {chunks}")
        return Array(
            store=store,
            name=name,
            where=where,
            shape=shape,
            chunks=chunks,
            dtype=np.dtype(meta["dtype"]),
            fill=meta.get("fill_value"),
            order="F" if meta.get("order") == "F" else "C",
            separator="/" if meta.get("dimension_separator") == "/" else ".",
            codec=dict(meta.get("compressor") or {}),
        )


@dataclass(frozen=True, kw_only=True)
class Array:
    """[N, ...] of numbers."""

    store: Store
    name: str
    where: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    dtype: np.dtype
    fill: Any
    order: str
    separator: str
    codec: dict[str, Any]

    def rows(self, start: int, stop: int) -> np.ndarray:
        """[stop - start, ...]"""
        step = self.chunks[0]
        shape = (stop - start, *self.shape[1:])
        out = np.empty(shape, self.dtype)
        for number in range(start // step, -(-stop // step)):
            first, last = max(start, number * step), min(stop, (number + 1) * step)
            block = self.block(number)
            out[first - start : last - start] = block[first - number * step : last - number * step]
        return out

    def block(self, number: int) -> np.ndarray:
        """The rows of one chunk along the first axis, whole in the others."""
        check_bytes((self.chunks[0], *self.shape[1:]), self.dtype, MAX_CHUNK, self.where)
        out = np.empty((self.chunks[0], *self.shape[1:]), self.dtype)
        grid = [range(-(-size // chunk)) for size, chunk in self._others]
        for place in itertools.product(*grid):
            chunk = self._chunk((number, *place))
            at = tuple(
                slice(i * step, min(size, (i + 1) * step))
                for i, (size, step) in zip(place, self._others, strict=True)
            )
            inside = tuple(slice(0, one.stop - one.start) for one in at)
            out[(slice(None), *at)] = chunk[(slice(None), *inside)]
        return out

    @cached_property
    def _others(self) -> list[tuple[int, int]]:
        return list(zip(self.shape[1:], self.chunks[1:], strict=True))

    def _chunk(self, place: tuple[int, ...]) -> np.ndarray:
        """Full size at the borders too. One that is not stored is all fill_value."""
        name = self.separator.join(map(str, place))
        where = f"{self.where}/{name}"
        check_bytes(self.chunks, self.dtype, MAX_CHUNK, where)
        size = math.prod(self.chunks) * self.dtype.itemsize
        with readable(where):
            data = self.store.read(f"{self.name}/{name}", 2 * size + _MAX_METADATA)
            if data is None:
                if self.fill is None:
                    raise ValueError("the chunk is absent, and nothing says what to fill in")
                return np.full(self.chunks, self.fill, self.dtype)
            values = np.frombuffer(_unpacked(data, self.codec, self.chunks, self.dtype), self.dtype)
            return values.reshape(self.chunks, order="F" if self.order == "F" else "C")


def _sizes(values: Any, least: int) -> tuple[int, ...]:
    sizes = tuple(int(one) for one in values)
    if any(one < least for one in sizes):
        raise ValueError(f"sizes {sizes}")
    return sizes


def _unpacked(
    data: bytes, codec: dict[str, Any], chunks: tuple[int, ...], dtype: np.dtype
) -> bytes | np.ndarray:
    """Exactly one chunk's bytes. Raises ValueError where they are more or fewer, before memory is
    taken for them."""
    size = math.prod(chunks) * dtype.itemsize
    name = codec.get("id")
    image = str(name).removeprefix("imagecodecs_")
    if name in ("blosc", "lz4", "zstd"):
        found = _CONTENT_SIZE[name](data)
        if found != size:
            raise ValueError(f"{name} says {found} bytes; a chunk has {size}")
        out = np.empty(size, np.uint8)
        _library("numcodecs").get_codec({"id": name}).decode(data, out=out)
        return out
    if name in ("zlib", "gzip"):
        data = zlib.decompressobj(wbits=47).decompress(data, size + 1)
    elif image != name and image in _IMAGE_CODECS:
        pixels = np.empty([one for one in chunks if one != 1], dtype)
        getattr(_library("imagecodecs"), f"{image}_decode")(data, out=pixels)
        return pixels.reshape(-1).view(np.uint8)
    elif name is not None:
        raise ValueError(f"codec {name!r} is not read")
    if len(data) != size:
        raise ValueError(f"{len(data)} bytes; a chunk has {size}")
    return data


def _zstd_size(data: bytes) -> int:
    """RFC 8878, 3.1.1.1: the content size of the frame; -1 where it is not written."""
    if data[:4] != b"\x28\xb5\x2f\xfd":
        raise ValueError("no zstd frame")
    flags = data[4]
    single = bool(flags & 0x20)
    at = 5 + (not single) + (0, 1, 2, 4)[flags & 3]
    width = (int(single), 2, 4, 8)[flags >> 6]
    size = int.from_bytes(data[at : at + width], "little")
    return -1 if width == 0 else size + 256 * (width == 2)


_CONTENT_SIZE = {
    "blosc": lambda data: int.from_bytes(data[4:8], "little"),
    "lz4": lambda data: int.from_bytes(data[:4], "little"),
    "zstd": _zstd_size,
}


def _library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise FoundryError(
            f"{name} is not installed here ({error})", "pip install 'foundry-robotics[zarr]'"
        ) from None
