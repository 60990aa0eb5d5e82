"""Bounded decompression, and messages in chunks of a file that are found again by their offsets."""

import bz2
import io
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import lz4.frame
import zstandard

from foundry_core.data.robot.episodes import UnusableEpisode
from foundry_core.data.sources.robot.ros_files import PACKED, Channel

MAX_CHUNK = 1 << 28
"""Bytes of one chunk or message, packed or not."""
_MAX_RATIO = 1000
_HELD = 2
_PIECE = 1 << 20
_ZSTD = b"\x28\xb5\x2f\xfd"
REMOVE = "record or fetch it again, or remove the episode"


class DamagedChunk(ValueError):
    """Bytes that do not decompress to what is said of them."""


def unpacked(data: bytes, compression: str, size: int) -> bytes:
    """The `size` bytes of a chunk. DamagedChunk where they are others, or too many."""
    if size > MAX_CHUNK:
        raise DamagedChunk(f"its size is said to be {size}, at most {MAX_CHUNK} are read")
    try:
        if compression in ("", "none"):
            out = data
        elif compression == "lz4":
            out = lz4.frame.LZ4FrameDecompressor().decompress(data, max_length=size + 1)
        elif compression == "bz2":
            out = bz2.BZ2Decompressor().decompress(data, max_length=size + 1)
        elif compression == "zstd":
            out = zstandard.ZstdDecompressor().stream_reader(data).read(size + 1)
        else:
            raise DamagedChunk(f"compression {compression!r} is none of lz4, bz2, zstd")
    except (RuntimeError, OSError, EOFError, ValueError, zstandard.ZstdError) as error:
        raise DamagedChunk(str(error)) from error
    if len(out) != size:
        raise DamagedChunk(f"it holds {len(out)} bytes or more, not {size}")
    return out


def unpacked_message(data: bytes) -> bytes:
    """A message of a ROS 2 bag that may be compressed by itself: CDR never begins like zstd."""
    if not data.startswith(_ZSTD):
        return data
    stream, out = zstandard.ZstdDecompressor().stream_reader(data), bytearray()
    try:
        while piece := stream.read(_PIECE):
            out += piece
            if len(out) > MAX_CHUNK:
                raise DamagedChunk(f"a message unpacks to more than {MAX_CHUNK} bytes")
    except zstandard.ZstdError as error:
        raise DamagedChunk(str(error)) from error
    return bytes(out)


class PlainFile:
    """A file without its outer compression; what had to be unpacked lives as long as this."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.suffix != PACKED:
            return
        self._folder = tempfile.TemporaryDirectory(prefix="foundry-ros-")
        self.path = Path(self._folder.name) / path.stem
        limit, written = path.stat().st_size * _MAX_RATIO, 0
        try:
            with path.open("rb") as packed, self.path.open("wb") as plain:
                stream = zstandard.ZstdDecompressor().stream_reader(packed)
                while piece := stream.read(_PIECE):
                    written += plain.write(piece)
                    if written > limit:
                        raise DamagedChunk(f"it unpacks to more than {_MAX_RATIO} times its size")
        except (zstandard.ZstdError, DamagedChunk) as error:
            raise UnusableEpisode(f"{path} does not unpack: {error}", REMOVE) from error


@dataclass(frozen=True, kw_only=True, slots=True)
class Chunk:
    """start, stored: its bytes in the file. size: unpacked."""

    compression: str
    start: int
    stored: int
    size: int


class ChunkedFile:
    """Base of files of records, some of which are chunks of more records.

    A place is (chunk, offset, size): the chunk by where it starts, -1 for the file itself.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.channels: list[Channel] = []
        self.cut = ""
        self.chunks: dict[int, Chunk] = {}
        self._plain = PlainFile(path)
        self._held: dict[int, bytes] = {}

    @contextmanager
    def opened(self) -> Iterator[io.BufferedReader]:
        """The unpacked file. OSError becomes UnusableEpisode."""
        try:
            with self._plain.path.open("rb") as stream:
                yield stream
        except OSError as error:
            raise UnusableEpisode(f"{self.path} is not readable: {error}", REMOVE) from error

    @property
    def size(self) -> int:
        return self._plain.path.stat().st_size

    def cut_at(self, offset: int, what: str) -> None:
        self.cut = f"{what} at byte {offset} of {self.size}"

    def unpack(self, chunk: Chunk) -> bytes:
        """What a chunk holds; the last ones are kept. UnusableEpisode."""
        if chunk.start not in self._held:
            data = self._read(chunk.start, chunk.stored)
            try:
                plain = unpacked(data, chunk.compression, chunk.size)
            except DamagedChunk as error:
                raise UnusableEpisode(
                    f"{self.path}: the chunk at byte {chunk.start} is damaged: {error}", REMOVE
                ) from error
            while len(self._held) >= _HELD:
                del self._held[next(iter(self._held))]
            self._held[chunk.start] = plain
            self.chunks[chunk.start] = chunk
        return self._held[chunk.start]

    def fetch(self, place: tuple[int, ...]) -> bytes:
        chunk, offset, size = place
        if chunk < 0:
            return self._read(offset, size)
        return self.unpack(self.chunks[chunk])[offset : offset + size]

    def _read(self, offset: int, size: int) -> bytes:
        with self.opened() as stream:
            stream.seek(offset)
            data = stream.read(size) if size <= MAX_CHUNK else b""
        if len(data) != size:
            raise UnusableEpisode(
                f"{self.path} holds no {size} bytes at byte {offset}, or more than are read", REMOVE
            )
        return data
