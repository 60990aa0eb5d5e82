"""Arrays of an .npz file that nobody vouches for: named, bounded, by their checksums, no pickles.

A zip's directory says how large an array is before it is unpacked, and no more than that is taken.
"""

import io
import math
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from foundry_core.data.npy import MAX_HEADER, npy_header, read_npy
from foundry_core.data.robot.episodes import Frames, UnusableEpisode
from foundry_core.data.sources.robot.steps import (
    MAX_FIELD,
    MAX_PICTURE,
    check_bytes,
    check_file,
    readable,
)
from foundry_core.errors import FoundryError

_ENDING = ".npy"


@contextmanager
def _named(where: str) -> Iterator[None]:
    with readable(where):
        try:
            yield
        except UnusableEpisode:
            raise
        except FoundryError as error:
            raise ValueError(error.message) from error


class NpzFile:
    """where: what errors call it."""

    def __init__(self, file: Path | BinaryIO, where: str) -> None:
        self.where = where
        with _named(where):
            self._zip = zipfile.ZipFile(file)
            self._members = {
                one.filename.removesuffix(_ENDING): one for one in self._zip.infolist()
            }

    @classmethod
    def at(cls, path: Path) -> "NpzFile":
        """UnusableEpisode for what is no .npz file."""
        check_file(path)
        return cls(path, str(path))

    @classmethod
    def of(cls, data: bytes, where: str) -> "NpzFile":
        return cls(io.BytesIO(data), where)

    def __contains__(self, name: str) -> bool:
        return name in self._members

    @property
    def names(self) -> list[str]:
        return list(self._members)

    def array(self, name: str) -> np.ndarray:
        """A small one, whole. UnusableEpisode where it is absent, damaged or too large."""
        where = self._at(name)
        with _named(where):
            if name not in self._members:
                raise ValueError("there is no such array")
            member = self._members[name]
            if member.file_size > MAX_FIELD:
                raise ValueError(f"{member.file_size:,} bytes, more than {MAX_FIELD:,}")
            return read_npy(self._zip.read(member))

    def frames(self, name: str) -> Frames[np.ndarray]:
        """The rows [L, ...] of an array, each read when it is asked for: in their order, each is
        unpacked once, and the last one checks them all."""
        where = self._at(name)
        with _named(where):
            with self._zip.open(self._members[name]) as stream:
                head = stream.read(MAX_HEADER)
            dtype, shape, fortran, start = npy_header(head)
            if not shape or (fortran and len(shape) > 1):
                raise ValueError(f"an array {list(shape)}, in the order of Fortran or no list")
            check_bytes(shape[1:], dtype, MAX_PICTURE, f"{where}: a picture")
            size = math.prod(shape[1:]) * dtype.itemsize
            if start + size * shape[0] != self._members[name].file_size:
                raise ValueError(f"its header claims {list(shape)} values, it holds others")
        stream, at = self._zip.open(self._members[name]), -1

        def read(step: int) -> np.ndarray:
            nonlocal stream, at
            with _named(f"{where} at step {step}"):
                if at < 0 or step < at:
                    stream, at = self._zip.open(self._members[name]), 0
                    stream.read(start)
                while at <= step:
                    data = stream.read(size)
                    at += 1
                if len(data) != size:
                    raise ValueError("it ends too early")
                return np.frombuffer(data, dtype).reshape(shape[1:])

        return Frames(shape[0], read)

    def _at(self, name: str) -> str:
        return f"{self.where}: {name!r}"
