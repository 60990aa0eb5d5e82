"""The files of a tar that anybody made, header by header, and everything that is wrong with it.

`tarfile` takes a damaged header in the middle for the end of the archive, as it does a cut at a
member's border, and follows sparse members and sizes below zero wherever they lead: samples would
be lost in silence, or memory without end be asked for. Read here: ustar, GNU and pax, uncompressed.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from foundry_core.data.shards.tar import BLOCK
from foundry_core.errors import FoundryError

_AGAIN = "fetch or convert it again"
_ZEROS = bytes(BLOCK)
_MAX_HEADER = 1 << 20
_PIECE = 1 << 20
_PACKED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
}
_FILES, _NAMES, _PAX, _NO_DATA = b"07\0", b"L", b"xX", b"123456"
_IGNORED = b"gK"


class Member(NamedTuple):
    """A regular file of a tar: where its bytes begin, and how many they are."""

    name: str
    offset: int
    size: int

    @property
    def end(self) -> int:
        """Where what follows begins."""
        return self.offset + -(-self.size // BLOCK) * BLOCK


class DamagedTar(FoundryError):
    """The tar is cut short, or a header makes no sense. What came before it is whole."""


def walk_tar(path: Path, start: int = 0, stop: int = -1) -> Iterator[Member]:
    """Every regular file in the order of the tar. DamagedTar, after the last whole one, where the
    file is no whole tar; links, folders and devices are passed over. start, stop: the `end` of
    members, between which is looked; -1 is the tar's."""
    with path.open("rb") as stream:
        yield from _Walk(path, stream).members(start, stop)


class _Walk:
    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self._path, self._stream = path, stream
        self._size = os.fstat(stream.fileno()).st_size
        self._last = ""

    def members(self, at: int, stop: int) -> Iterator[Member]:
        said = _Said()
        while at != stop:
            header = self._block(at)
            if header == _ZEROS:
                return self._check_rest(at)
            kind = self._checked(header, at)
            size = self._number(header, at) if said.size is None else said.size
            offset = at + BLOCK
            at = offset if kind in _NO_DATA else offset + -(-size // BLOCK) * BLOCK
            if kind in _IGNORED + _NAMES + _PAX:
                data = self._extra(offset, size)
                if kind in _NAMES:
                    said.name = _text(data.rstrip(b"\0"))
                elif kind in _PAX:
                    self._take_pax(data, offset, said)
                continue
            if kind not in _FILES + _NO_DATA:
                raise self._damaged(f"holds a member of type {kind!r} at byte {offset - BLOCK}")
            name = said.name if said.name is not None else _name(header)
            if kind in _FILES and not name.endswith("/"):
                if offset + size > self._size:
                    raise self._cut(f"member {name!r} needs {size} bytes at {offset}")
                self._last = name
                yield Member(name, offset, size)
            said = _Said()

    def _block(self, at: int) -> bytes:
        self._stream.seek(at)
        header = self._stream.read(BLOCK)
        if len(header) == BLOCK:
            return header
        packed = next((n for magic, n in _PACKED.items() if header.startswith(magic)), "")
        if at == 0 and packed:
            raise self._packed(packed)
        raise self._cut("the end-of-archive mark is missing")

    def _checked(self, header: bytes, at: int) -> bytes:
        """The member's type. The checksum counts its own eight bytes as blanks."""
        total = sum(header) - sum(header[148:156]) + 8 * 32
        if total != _octal(header[148:156]):
            packed = next((n for magic, n in _PACKED.items() if header.startswith(magic)), "")
            if at == 0 and packed:
                raise self._packed(packed)
            raise self._damaged(f"has no tar header at byte {at}")
        return header[156:157]

    def _number(self, header: bytes, at: int) -> int:
        field = header[124:136]
        # GNU: a set top bit, then a number of 11 bytes, big endian.
        size = int.from_bytes(field[1:], "big") if field[0] == 0x80 else _octal(field)
        if size is None:
            raise self._damaged(f"has a member of no size at byte {at}")
        return size

    def _extra(self, offset: int, size: int) -> bytes:
        if size > _MAX_HEADER:
            raise self._damaged(f"has a header of {size} bytes at {offset}")
        self._stream.seek(offset)
        data = self._stream.read(size)
        if len(data) < size:
            raise self._cut(f"a header needs {size} bytes at {offset}")
        return data

    def _take_pax(self, data: bytes, offset: int, said: "_Said") -> None:
        """Records "<length> <key>=<value>\\n"."""
        at = 0
        while at < len(data):
            blank = data.find(b" ", at, at + 20)
            length = data[at:blank] if blank > 0 else b""
            end = at + int(length) if length.isdigit() else at
            key, equals, value = data[blank + 1 : end - 1].partition(b"=")
            if end <= blank or end > len(data) or not equals:
                raise self._damaged(f"has a pax header of no sense at byte {offset}")
            if key.startswith(b"GNU.sparse"):
                raise self._damaged(f"holds a sparse member at byte {offset}")
            if key == b"path":
                said.name = _text(value)
            elif key == b"size":
                if not value.isdigit() or len(value) > 20:
                    raise self._damaged(f"has a member of {value[:20]!r} bytes at byte {offset}")
                said.size = int(value)
            at = end

    def _check_rest(self, at: int) -> None:
        """Nothing but zeros may follow the mark: of tars that were joined, readers see the first
        alone."""
        self._stream.seek(at)
        while piece := self._stream.read(_PIECE):
            if piece.count(0) != len(piece):
                raise self._damaged(f"goes on behind the end-of-archive mark at byte {at}")

    def _cut(self, what: str) -> DamagedTar:
        return self._damaged(f"is truncated: {what}")

    def _packed(self, how: str) -> DamagedTar:
        return DamagedTar(f"{str(self._path)!r} is compressed ({how})", "unpack it")

    def _damaged(self, what: str) -> DamagedTar:
        where = f", after {self._last!r}" if self._last else ""
        return DamagedTar(
            f"{str(self._path)!r} ({self._size} bytes) is not a whole tar: it {what}{where}", _AGAIN
        )


class _Said:
    """What extra headers say of the member that follows."""

    name: str | None = None
    size: int | None = None


def _name(header: bytes) -> str:
    name = header[:100].partition(b"\0")[0]
    prefix = header[345:500].partition(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    return _text(prefix + b"/" + name if prefix else name)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _octal(field: bytes) -> int | None:
    digits = field.strip(b" \0")
    if not digits:
        return 0
    return int(digits, 8) if digits.isdigit() and not set(digits) & set(b"89") else None
