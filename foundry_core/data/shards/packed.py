"""The index of a dataset as one binary file, mapped by every process that reads the shards.

It holds no Python object per member, so ten thousand shards cost one open file and the pages that
are looked at, which processes share. All numbers are little-endian:

    header      magic, version, shards S, samples, sha256 of the directory
    directory   S x (offset and bytes of the section, bytes of the tar, samples, sha256 of section)
    sections    one per shard; no bytes where a shard could not be read when the index was made

    section     samples N, members M, suffixes E, their width W, bytes of keys
                N + 1 x (first member, where its key begins)
                M x (offset and size of the data in the tar, number of the suffix)
                E x W bytes: the suffixes (".tokens.npy"), sorted, padded with zeros
                the keys, one behind the other

A member's name is its key and its suffix; members of a sample are sorted by suffix. Nothing in an
index is believed: digests go from the manifest over the directory to the sections, every number is
compared with the bounds of what it points into, and who reads a member finds its name in the tar.
"""

import hashlib
import mmap
import os
import struct
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np

from foundry_core.data.shards.index import ShardIndex, split_name
from foundry_core.data.shards.tar import BLOCK
from foundry_core.errors import FoundryError
from foundry_core.files import replacing

DATASET_INDEX = "shards.index"
VERSION = 1
_MAGIC = b"\x89FSHARDS"
_HEADER = struct.Struct("<8sIIQ32s8x")
_ROW = struct.Struct("<QQQQ32s")
_SECTION = struct.Struct("<IIIIQ8x")
_SAMPLE = struct.Struct("<II")
_PAIR = struct.Struct("<IIII")
_MEMBER = struct.Struct("<QQI")
_LAYOUT = struct.Struct("<12Q")
_MEMBER_TYPE = np.dtype([("offset", "<u8"), ("size", "<u8"), ("suffix", "<u4")])
_FEW = 8
_MAX = 2**32 - 1
_HINT = "delete it: it is made anew from the tars, in the cache"


# A member: offset and size of its data in the tar, and the name that its header there must have.
Span = tuple[int, int, bytes]


class Row(NamedTuple):
    """What the directory says of a shard; length 0: it has no section."""

    offset: int
    length: int
    tar_bytes: int
    samples: int
    digest: bytes


class _Layout(NamedTuple):
    """Where a section and its parts lie in the buffer, how large they are and how many."""

    offset: int
    length: int
    tar_bytes: int
    samples: int
    members: int
    suffixes: int
    width: int
    key_bytes: int
    samples_at: int
    members_at: int
    suffixes_at: int
    keys_at: int


class Section:
    """Members of one shard, in a buffer that holds its section. `where` is for messages.

    Each read is of another one among thousands. What is known of a section is one object of bytes
    and not a dozen numbers, each of which would be a line of memory that no cache holds any more.
    """

    __slots__ = ("_buffer", "_packed", "_where")

    def __init__(self, buffer: bytes | mmap.mmap, row: Row, where: str) -> None:
        self._buffer, self._where = buffer, where
        if row.length < _SECTION.size:
            self._lies("a section is shorter than its header")
        samples, members, suffixes, width, keys = _SECTION.unpack_from(buffer, row.offset)
        samples_at = row.offset + _SECTION.size
        members_at = samples_at + (samples + 1) * _SAMPLE.size
        suffixes_at = members_at + members * _MEMBER.size
        keys_at = suffixes_at + suffixes * width
        if keys_at + keys != row.offset + row.length or samples != row.samples or not width:
            self._lies("the counts of a section are not those of its bytes")
        sizes = (row.tar_bytes, samples, members, suffixes, width, keys)
        places = (samples_at, members_at, suffixes_at, keys_at)
        self._packed = _LAYOUT.pack(row.offset, row.length, *sizes, *places)

    @property
    def _layout(self) -> _Layout:
        return _Layout._make(_LAYOUT.unpack(self._packed))

    def __len__(self) -> int:
        return self._layout.samples

    @property
    def tar_bytes(self) -> int:
        """Size of the shard."""
        return self._layout.tar_bytes

    def key(self, sample: int) -> str:
        """Of sample number `sample` of the shard."""
        return _text(self._sample(self._layout, sample)[2])

    def members(self, sample: int) -> list[tuple[str, Span]]:
        """(extension, span) of every member of a sample, in the order of the tar."""
        layout = self._layout
        first, stop, key = self._sample(layout, sample)
        spans = sorted(self._span(layout, member, key) for member in range(first, stop))
        return [(split_name(_text(name))[1], (offset, size, name)) for offset, size, name in spans]

    def find(self, sample: int, extensions: Sequence[str]) -> list[Span | None]:
        """The members of a sample with these extensions, None for those that it lacks."""
        layout = self._layout
        first, stop, key = self._sample(layout, sample)
        if stop - first > _FEW:
            suffixes = [_suffix(name) for name in extensions]
            return self._find_many(layout, first, stop, key, suffixes)
        found = {}
        for member in range(first, stop):
            span = self._span(layout, member, key)
            found[span[2]] = span
        return [found.get(key + _suffix(name)) for name in extensions]

    def _find_many(
        self, layout: _Layout, first: int, stop: int, key: bytes, suffixes: list[bytes]
    ) -> list[Span | None]:
        """Two searches in sorted arrays: an episode has hundreds of members."""
        known = np.frombuffer(self._buffer, f"S{layout.width}", layout.suffixes, layout.suffixes_at)
        held = np.frombuffer(
            self._buffer, _MEMBER_TYPE, stop - first, layout.members_at + first * _MEMBER.size
        )["suffix"]
        numbers = np.searchsorted(known, np.array(suffixes, dtype=f"S{max(map(len, suffixes))}"))
        places = np.searchsorted(held, numbers, side="right") - 1
        spans = [self._span(layout, first + place, key) for place in np.maximum(places, 0).tolist()]
        return [
            span if span[2] == key + suffix else None
            for span, suffix in zip(spans, suffixes, strict=True)
        ]

    def unpacked(self) -> ShardIndex:
        """All of it as Python objects, members in the order of the tar: for tools."""
        spans: list[Span] = []
        starts = [0]
        for sample in range(len(self)):
            spans += [span for _, span in self.members(sample)]
            starts.append(len(spans))
        return ShardIndex(
            names=tuple(_text(name) for _, _, name in spans),
            offsets=np.array([offset for offset, _, _ in spans], dtype=np.int64),
            sizes=np.array([size for _, size, _ in spans], dtype=np.int64),
            starts=np.array(starts, dtype=np.int64),
            tar_bytes=self.tar_bytes,
        )

    def content(self) -> bytes:
        """Its bytes."""
        layout = self._layout
        return self._buffer[layout.offset : layout.offset + layout.length]

    def _sample(self, layout: _Layout, sample: int) -> tuple[int, int, bytes]:
        """(first member, one behind the last, key)"""
        if not 0 <= sample < layout.samples:
            self._lies(f"it has no sample {sample}")
        first, key, stop, end = _PAIR.unpack_from(
            self._buffer, layout.samples_at + sample * _SAMPLE.size
        )
        if not (first < stop <= layout.members and key <= end <= layout.key_bytes):
            self._lies(f"sample {sample} lies outside its section")
        keys = layout.keys_at
        return first, stop, self._buffer[keys + key : keys + end]

    def _span(self, layout: _Layout, member: int, key: bytes) -> Span:
        offset, size, suffix = _MEMBER.unpack_from(
            self._buffer, layout.members_at + member * _MEMBER.size
        )
        if suffix >= layout.suffixes or offset < BLOCK or offset + size > layout.tar_bytes:
            self._lies(f"member {member} lies outside its tar")
        at = layout.suffixes_at + suffix * layout.width
        return offset, size, key + self._buffer[at : at + layout.width].rstrip(b"\0")

    def _lies(self, problem: str) -> NoReturn:
        raise _damaged(self._where, problem)


class IndexFile:
    """An index that is open: mapped, or in memory. Opening reads the directory alone."""

    def __init__(self, buffer: bytes | mmap.mmap, where: str) -> None:
        self._buffer, self._where = buffer, where
        if len(buffer) < _HEADER.size:
            raise _damaged(where, f"it has {len(buffer)} bytes")
        magic, version, shards, samples, digest = _HEADER.unpack_from(buffer, 0)
        if magic != _MAGIC:
            raise _damaged(where, "it does not begin as one")
        if version != VERSION:
            raise FoundryError(
                f"shard index {where!r} has version {version}, this release reads {VERSION}",
                "read it with the release that wrote it, or delete it: it is made anew",
            )
        self._shards, end = shards, _HEADER.size + shards * _ROW.size
        if end > len(buffer) or hashlib.sha256(buffer[_HEADER.size : end]).digest() != digest:
            raise _damaged(where, "its directory is damaged")
        rows = [self.row(number) for number in range(shards)]
        for row in rows:
            if row.length and not (end <= row.offset and row.offset + row.length <= len(buffer)):
                raise _damaged(where, "a section lies outside the file")
        if sum(row.samples for row in rows) != samples:
            raise _damaged(where, "its counts do not add up")

    @classmethod
    def open(cls, path: Path) -> "IndexFile":
        """Maps a file. FileNotFoundError where there is none."""
        with path.open("rb") as stream:
            if not os.fstat(stream.fileno()).st_size:
                raise _damaged(str(path), "it has 0 bytes")
            mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        return cls(mapped, str(path))

    def __len__(self) -> int:
        return self._shards

    def row(self, number: int) -> Row:
        """What the directory says of a shard."""
        return Row(*_ROW.unpack_from(self._buffer, _HEADER.size + number * _ROW.size))

    def section(self, number: int) -> Section | None:
        """Of a shard, its digest checked; None where the index has none."""
        row = self.row(number)
        if not row.length:
            return None
        if isinstance(self._buffer, mmap.mmap) and self._buffer.size() != len(self._buffer):
            raise _damaged(self._where, "its size changed while it was read")
        content = self._buffer[row.offset : row.offset + row.length]
        if hashlib.sha256(content).digest() != row.digest:
            raise _damaged(self._where, f"the section of shard {number} is damaged")
        return Section(self._buffer, row, self._where)


def pack(index: ShardIndex) -> bytes:
    """The section of a shard; equal members are equal bytes."""
    keys: list[bytes] = []
    members: list[tuple[bytes, int, int]] = []
    for start, stop in zip(index.starts[:-1].tolist(), index.starts[1:].tolist(), strict=True):
        key = split_name(index.names[start])[0]
        keys.append(_bytes(key))
        members += sorted(
            (_bytes(index.names[m][len(key) :]), int(index.offsets[m]), int(index.sizes[m]))
            for m in range(start, stop)
        )
    suffixes = sorted({suffix for suffix, _, _ in members})
    numbers = {suffix: number for number, suffix in enumerate(suffixes)}
    width = max(map(len, suffixes), default=1) or 1
    blob = b"".join(keys)
    if max(len(members), len(blob)) > _MAX:
        raise FoundryError(
            f"a shard of {len(members)} members is too large to index", "write smaller shards"
        )
    samples = np.zeros((len(keys) + 1, 2), dtype="<u4")
    samples[:, 0] = index.starts
    samples[1:, 1] = np.cumsum([len(key) for key in keys])
    table = np.array(
        [(offset, size, numbers[suffix]) for suffix, offset, size in members], dtype=_MEMBER_TYPE
    )
    return b"".join(
        (
            _SECTION.pack(len(keys), len(members), len(suffixes), width, len(blob)),
            samples.tobytes(),
            table.tobytes(),
            b"".join(suffix.ljust(width, b"\0") for suffix in suffixes),
            blob,
        )
    )


class Packed(NamedTuple):
    """A section, ready to be written; no bytes: the shard could not be read."""

    content: bytes
    tar_bytes: int
    samples: int

    @classmethod
    def of(cls, index: ShardIndex) -> "Packed":
        """From an index in memory."""
        return cls(pack(index), index.tar_bytes, len(index))

    @property
    def digest(self) -> bytes:
        """As the directory and, in hexadecimal, the manifest have it."""
        return hashlib.sha256(self.content).digest()


def write_index(path: Path, sections: Iterable[Packed], count: int) -> list[Row]:
    """Writes an index of `count` shards, holding one section at a time; its directory."""
    rows: list[Row] = []
    with replacing(path) as temporary, temporary.open("xb") as stream:
        at = _HEADER.size + count * _ROW.size
        stream.seek(at)
        for packed in sections:
            stream.write(packed.content)
            rows.append(_row(at, packed))
            at += len(packed.content)
        stream.truncate(at)
        stream.seek(0)
        stream.write(_head(rows))
        assert len(rows) == count, (len(rows), count)
    return rows


def index_bytes(sections: Sequence[Packed]) -> bytes:
    """The same file in memory."""
    at, rows = _HEADER.size + len(sections) * _ROW.size, []
    for packed in sections:
        rows.append(_row(at, packed))
        at += len(packed.content)
    return _head(rows) + b"".join(packed.content for packed in sections)


def read_packed(path: Path) -> Packed:
    """The one section of the index of one shard."""
    index = IndexFile(path.read_bytes(), str(path))
    section = index.section(0) if len(index) == 1 else None
    if section is None:
        raise _damaged(str(path), "it is not that of one shard")
    return Packed(section.content(), section.tar_bytes, len(section))


def _row(at: int, packed: Packed) -> Row:
    return Row(at, len(packed.content), packed.tar_bytes, packed.samples, packed.digest)


def _head(rows: Sequence[Row]) -> bytes:
    directory = b"".join(_ROW.pack(*row) for row in rows)
    samples = sum(row.samples for row in rows)
    digest = hashlib.sha256(directory).digest()
    return _HEADER.pack(_MAGIC, VERSION, len(rows), samples, digest) + directory


def _damaged(where: str, problem: str) -> FoundryError:
    return FoundryError(f"shard index {where!r} cannot be used: {problem}", _HINT)


@lru_cache(maxsize=4096)
def _suffix(extension: str) -> bytes:
    return f".{extension}".encode() if extension else b""


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _bytes(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")
