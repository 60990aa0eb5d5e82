"""MCAP files, read from the start: a summary that lies, or is not there, is no matter.

A record is u8 opcode, u64 length, content. Little endian; strings have a u32 length.
"""

import struct
import zlib
from collections.abc import Callable, Iterator

from foundry_core.data.robot.episodes import UnusableEpisode
from foundry_core.data.sources.robot.ros_chunks import REMOVE, Chunk, ChunkedFile
from foundry_core.data.sources.robot.ros_files import Channel, Raw

_MAGIC = b"\x89MCAP0\r\n"
_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _DATA_END, _FOOTER = 3, 4, 5, 6, 15, 2
_HEAD, _TIMES = struct.Struct("<BQ"), struct.Struct("<HIQQ")
_CHUNK_HEAD = struct.Struct("<QQQII")
_U16, _U32, _U64 = struct.Struct("<H"), struct.Struct("<I"), struct.Struct("<Q")
# A chunk record is its fields, the name of a compression, and the records.
_MAX_NAME = 64


class Mcap(ChunkedFile):
    def messages(self, wanted: Callable[[str], bool]) -> Iterator[Raw]:
        known = _Known(self.channels)
        try:
            for opcode, at, length in self._records():
                if opcode == _CHUNK:
                    chunk, crc = self._chunk(at, length)
                    data = self.unpack(chunk)
                    if crc and zlib.crc32(data) != crc:
                        raise ValueError(f"the checksum of the chunk at byte {at} is another")
                    for inner, offset, size in _records(data):
                        content = data[offset : offset + size]
                        yield from known.take(inner, content, (chunk.start, offset, size), wanted)
                elif opcode in (_SCHEMA, _CHANNEL, _MESSAGE):
                    content = self.fetch((-1, at, length))
                    yield from known.take(opcode, content, (-1, at, length), wanted)
        except (KeyError, ValueError, struct.error) as error:
            raise UnusableEpisode(f"{self.path}: a record is damaged: {error!r}", REMOVE) from error

    def _records(self) -> Iterator[tuple[int, int, int]]:
        """(opcode, offset, length) of the file's data section. Ends early, with `cut` set, where
        it does."""
        with self.opened() as stream:
            if stream.read(len(_MAGIC)) != _MAGIC:
                raise UnusableEpisode(f"{self.path} is no MCAP file", REMOVE)
            size, at = self.size, len(_MAGIC)
            while True:
                stream.seek(at)
                head = stream.read(_HEAD.size)
                opcode, length = _HEAD.unpack(head) if len(head) == _HEAD.size else (0, size)
                if at + len(head) + length > size:
                    return self.cut_at(at, "a record ends too early")
                if opcode in (_DATA_END, _FOOTER):
                    break
                yield opcode, at + _HEAD.size, length
                at += _HEAD.size + length
            stream.seek(-len(_MAGIC), 2)
            if stream.read() != _MAGIC:
                self.cut_at(size, "the file does not end as it should")

    def _chunk(self, at: int, length: int) -> tuple[Chunk, int]:
        """The chunk record at an offset, and the checksum of what it holds."""
        head = self.fetch((-1, at, min(length, _CHUNK_HEAD.size + _MAX_NAME + 8)))
        _, _, size, crc, name = _CHUNK_HEAD.unpack_from(head)
        records = _CHUNK_HEAD.size + name
        stored = _U64.unpack_from(head, records)[0]
        if records + 8 + stored > length:
            raise ValueError(f"{stored} bytes in the chunk record of {length} at byte {at}")
        compression = head[_CHUNK_HEAD.size : records].decode()
        start = at + records + 8
        return Chunk(compression=compression, start=start, stored=stored, size=size), crc


class _Known:
    """Schemas and channels so far."""

    def __init__(self, channels: list[Channel]) -> None:
        self._schemas: dict[int, tuple[str, str, bytes]] = {0: ("", "", b"")}
        self._channels: dict[int, Channel] = {}
        self._listed = channels

    def take(
        self,
        opcode: int,
        content: bytes,
        place: tuple[int, int, int],
        wanted: Callable[[str], bool],
    ) -> Iterator[Raw]:
        """Of one record; the message, where it is one that is wanted. place: of the record."""
        if opcode == _SCHEMA:
            name, at = _string(content, 2)
            encoding, at = _string(content, at)
            data, _ = _prefixed(content, at)
            self._schemas[_U16.unpack_from(content)[0]] = (name, encoding, data)
        elif opcode == _CHANNEL:
            number, schema = _U16.unpack_from(content)[0], _U16.unpack_from(content, 2)[0]
            if number not in self._channels:
                topic, at = _string(content, 4)
                encoding, _ = _string(content, at)
                kind, schema_encoding, data = self._schemas[schema]
                channel = Channel(
                    topic=topic,
                    type=kind,
                    encoding=encoding,
                    schema_encoding=schema_encoding,
                    schema=data,
                )
                self._channels[number] = channel
                self._listed.append(channel)
        elif opcode == _MESSAGE:
            number, _, log, publish = _TIMES.unpack_from(content)
            channel = self._channels[number]
            if wanted(channel.topic):
                chunk, offset, size = place
                yield Raw(
                    channel=channel,
                    log=log,
                    publish=publish,
                    data=content[_TIMES.size :],
                    place=(chunk, offset + _TIMES.size, size - _TIMES.size),
                )


def _records(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(opcode, offset, length) of a chunk's records."""
    at = 0
    while at < len(data):
        opcode, length = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        if at + length > len(data):
            raise ValueError(f"a record of {length} bytes at {at} of a chunk of {len(data)}")
        yield opcode, at, length
        at += length


def _prefixed(content: bytes, at: int) -> tuple[bytes, int]:
    length = _U32.unpack_from(content, at)[0]
    end = at + 4 + length
    if end > len(content):
        raise ValueError(f"{length} bytes at {at} of a record of {len(content)}")
    return content[at + 4 : end], end


def _string(content: bytes, at: int) -> tuple[str, int]:
    data, end = _prefixed(content, at)
    return data.decode(), end
