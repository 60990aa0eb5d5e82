"""ROS 1 bags (version 2.0), read from the start: an index that lies, or is not there, is no matter.

A record is u32 header length, header, u32 data length, data; a header is fields of u32 length and
`name=value`. Little endian.
"""

import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from foundry_core.data.robot.episodes import UnusableEpisode
from foundry_core.data.sources.robot.ros_chunks import REMOVE, Chunk, ChunkedFile
from foundry_core.data.sources.robot.ros_files import Channel, Raw

_MAGIC = b"#ROSBAG V2.0\n"
_MESSAGE, _HEADER, _CHUNK, _CONNECTION = 2, 3, 5, 7
_MAX_HEADER = 1 << 20
_U32, _TIME = struct.Struct("<I"), struct.Struct("<II")


class _Record(NamedTuple):
    """at, data, size: where the record and its data begin, and the data's length."""

    at: int
    fields: dict[bytes, bytes]
    data: int
    size: int

    @property
    def op(self) -> int:
        return self.fields[b"op"][0]

    def number(self, name: bytes) -> int:
        return _U32.unpack(self.fields[name])[0]


class Bag1(ChunkedFile):
    def messages(self, wanted: Callable[[str], bool]) -> Iterator[Raw]:
        connections: dict[int, Channel] = {}
        try:
            for record in self._records():
                if record.op == _CHUNK:
                    chunk = Chunk(
                        compression=record.fields[b"compression"].decode(),
                        start=record.data,
                        stored=record.size,
                        size=record.number(b"size"),
                    )
                    yield from self._chunk(chunk, connections, wanted)
                elif record.op == _MESSAGE:
                    data = self.fetch((-1, record.data, record.size))
                    yield from self._message(record, data, -1, connections, wanted)
                elif record.op == _CONNECTION:
                    self._connect(record, self.fetch((-1, record.data, record.size)), connections)
        except (KeyError, IndexError, ValueError, struct.error) as error:
            raise UnusableEpisode(f"{self.path}: a record is damaged: {error!r}", REMOVE) from error

    def _records(self) -> Iterator[_Record]:
        """Of the file. Ends early, with `cut` set, where it does."""
        with self.opened() as stream:
            if stream.read(len(_MAGIC)) != _MAGIC:
                raise UnusableEpisode(f"{self.path} is no ROS 1 bag of version 2.0", REMOVE)
            size, at = self.size, len(_MAGIC)
            while at < size:
                stream.seek(at)
                head = stream.read(4)
                length = _U32.unpack(head)[0] if len(head) == 4 else size
                if length > min(size - at, _MAX_HEADER):
                    return self.cut_at(at, "a record ends too early")
                header, tail = stream.read(length), stream.read(4)
                if len(tail) < 4 or at + 8 + length + _U32.unpack(tail)[0] > size:
                    return self.cut_at(at, "a record ends too early")
                record = _Record(at, _fields(header), at + 8 + length, _U32.unpack(tail)[0])
                if record.op == _HEADER:
                    self._check_header(record)
                yield record
                at = record.data + record.size

    def _check_header(self, record: _Record) -> None:
        if record.fields.get(b"encryptor"):
            raise UnusableEpisode(f"{self.path} is encrypted", "decrypt it with rosbag decrypt")
        if not int.from_bytes(record.fields[b"index_pos"], "little"):
            self.cut = "it was never closed (no index)"

    def _chunk(
        self, chunk: Chunk, connections: dict[int, Channel], wanted: Callable[[str], bool]
    ) -> Iterator[Raw]:
        data, at = self.unpack(chunk), 0
        while at < len(data):
            length = _U32.unpack_from(data, at)[0]
            start = at + 8 + length
            size = _U32.unpack_from(data, start - 4)[0]
            if start + size > len(data):
                raise ValueError(f"{size} bytes at {start} of a chunk of {len(data)}")
            record = _Record(at, _fields(data[at + 4 : start - 4]), start, size)
            at = start + size
            if record.op == _CONNECTION:
                self._connect(record, data[start:at], connections)
            elif record.op == _MESSAGE:
                yield from self._message(record, data[start:at], chunk.start, connections, wanted)

    def _connect(self, record: _Record, data: bytes, connections: dict[int, Channel]) -> None:
        number, said = record.number(b"conn"), _fields(data)
        if number not in connections:
            channel = Channel(
                topic=record.fields[b"topic"].decode(),
                type=said[b"type"].decode(),
                encoding="ros1",
                schema_encoding="ros1msg",
                schema=said[b"message_definition"],
            )
            connections[number] = channel
            self.channels.append(channel)

    def _message(
        self,
        record: _Record,
        data: bytes,
        chunk: int,
        connections: dict[int, Channel],
        wanted: Callable[[str], bool],
    ) -> Iterator[Raw]:
        channel = connections[record.number(b"conn")]
        if wanted(channel.topic):
            seconds, nanoseconds = _TIME.unpack(record.fields[b"time"])
            time = seconds * 10**9 + nanoseconds
            place = (chunk, record.data, record.size)
            yield Raw(channel=channel, log=time, publish=time, data=data, place=place)


def _fields(header: bytes) -> dict[bytes, bytes]:
    fields: dict[bytes, bytes] = {}
    at = 0
    while at < len(header):
        length = _U32.unpack_from(header, at)[0]
        name, _, value = header[at + 4 : at + 4 + length].partition(b"=")
        fields[name] = value
        at += 4 + length
    return fields
