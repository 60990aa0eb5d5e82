"""Lines of text files, plain or compressed, in bounded memory.

Plain files are cut into pieces at line breaks. Of compressed ones only zstd's frames can be found
without unpacking what lies before them (every block states its length), so a file of one frame, and
any gzip file, is one piece.
"""

import gzip
import json
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import IO, Any

from foundry_core.data.sources.base import MAX_DOCUMENT, SourceRef
from foundry_core.data.sources.files import PIECE_BYTES, field_types, groups_by_size
from foundry_core.errors import FoundryError

COMPRESSED = (".gz", ".zst")
_CHUNK = 1 << 20
_SHOWN = 20
_ZSTD_MAGIC = 0xFD2FB528
_SKIPPABLE = range(0x184D2A50, 0x184D2A60)
# How many bytes of a frame header the two ids after the descriptor take.
_DICTIONARY_BYTES, _SIZE_BYTES = (0, 1, 2, 4), (0, 2, 4, 8)


class DamagedFile(FoundryError):
    """A compressed file that ends early or is none."""


def line_refs(file: Path) -> list[SourceRef]:
    """The pieces of a file of lines, in order; start and stop are bytes of the file. One that is
    not readable is one piece: reading it says why."""
    if not file.name.endswith(COMPRESSED):
        ranges = _line_ranges(file)
    elif file.name.endswith(".zst"):
        ranges = _frame_ranges(file)
    else:
        ranges = [(0, file.stat().st_size)]
    return [
        SourceRef(
            name=f"{file.name}@{start}" if len(ranges) > 1 else file.name,
            files=(str(file),),
            start=start,
            stop=stop,
        )
        for start, stop in ranges
    ]


def lines(ref: SourceRef) -> Iterator[tuple[str, bytes]]:
    """("file@byte" or "file:line", line without its break) of a piece. One that is longer than
    MAX_DOCUMENT is cut behind that. Raises DamagedFile at the place where a file is damaged."""
    file = ref.path.name
    if not file.endswith(COMPRESSED):
        for offset, line in _split(_plain(ref)):
            yield f"{file}@{ref.start + offset}", line
        return
    where = ref.name if ref.start else file
    number = 0
    try:
        for number, line in enumerate(_unpacked_lines(ref), 1):
            yield f"{where}:{number}", line
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DamagedFile(
            f"{file!r} is cut short or damaged behind line {number} of {where}: {error}",
            "fetch it again",
        ) from error


def json_fields(refs: list[SourceRef]) -> dict[str, str]:
    """Path → type, of what the first JSON lines of a source hold; bad ones are passed over."""
    return field_types(islice(_records(refs[:1]), _SHOWN))


def _records(refs: list[SourceRef]) -> Iterator[object]:
    try:
        for ref in refs:
            for _, line in islice(lines(ref), 100 * _SHOWN):
                with suppress(ValueError, RecursionError):
                    yield json.loads(line)
    except DamagedFile:
        return  # reading it says why


def unpacked(file: Path, start: int = 0, stop: int = -1) -> Any:
    """A stream of the bytes of a .gz, or of the frames of a .zst in a range, unpacked as they are
    read."""
    import pyarrow as pa

    if file.name.endswith(".gz"):
        return gzip.open(file, "rb")
    with pa.memory_map(str(file)) as mapped:
        mapped.seek(start)
        frames = mapped.read_buffer((mapped.size() if stop < 0 else stop) - start)
    return pa.input_stream(pa.BufferReader(frames), compression="zstd")


def _plain(ref: SourceRef) -> Iterator[bytes]:
    with ref.path.open("rb") as stream:
        stream.seek(ref.start)
        left = ref.stop - ref.start
        while left > 0 and (chunk := stream.read(min(_CHUNK, left))):
            left -= len(chunk)
            yield chunk


def _chunks(stream: Any) -> Iterator[bytes]:
    with stream:
        while chunk := stream.read(_CHUNK):
            yield chunk


def _unpacked_lines(ref: SourceRef) -> Iterator[bytes]:
    """A line belongs to the piece it begins in. A piece cannot tell whether it begins with a line:
    it leaves its first one to the piece before, which reads on for one line."""
    size = ref.path.stat().st_size
    found = _split(_whole_lines(ref, size))
    if ref.start:
        next(found, None)
    for _, line in found:
        yield line


def _whole_lines(ref: SourceRef, size: int) -> Iterator[bytes]:
    """The bytes of a piece, and those behind it up to the first line break, or until that line is
    longer than anybody reads."""
    yield from _chunks(unpacked(ref.path, ref.start, ref.stop))
    if ref.stop >= size:
        return
    more = 0
    for chunk in _chunks(unpacked(ref.path, ref.stop)):
        end = chunk.find(b"\n") + 1
        yield chunk[: end or None]
        more += len(chunk)
        if end or more > MAX_DOCUMENT:
            return


def _split(chunks: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    """(offset, line) of a stream; no more than one line and one chunk are held."""
    held: list[bytes] = []
    offset = length = 0
    for chunk in chunks:
        *whole, rest = chunk.split(b"\n")
        for end in whole:
            line = b"".join((*held, end)) if held else end
            yield offset, line[: MAX_DOCUMENT + 1]
            offset += length + len(end) + 1
            held, length = [], 0
        if length <= MAX_DOCUMENT and rest:
            held.append(rest)
        length += len(rest)
    if length:
        yield offset, b"".join(held)[: MAX_DOCUMENT + 1]


def _line_ranges(path: Path) -> list[tuple[int, int]]:
    """Byte ranges of about PIECE_BYTES that begin and end at line breaks, covering the file."""
    size = path.stat().st_size
    ranges: list[tuple[int, int]] = []
    start = 0
    with path.open("rb") as stream:
        while start < size:
            stream.seek(min(start + PIECE_BYTES, size) - 1)
            while (part := stream.readline(_CHUNK)) and not part.endswith(b"\n"):
                pass
            ranges.append((start, stream.tell()))
            start = stream.tell()
    return ranges


def _frame_ranges(path: Path) -> list[tuple[int, int]]:
    """Byte ranges of whole zstd frames, about PIECE_BYTES each. A file that cannot be walked to its
    end is one range."""
    size = path.stat().st_size
    sizes: list[tuple[int, int]] = []
    position = 0
    with path.open("rb") as stream:
        while position < size:
            stop = _frame_end(stream, position)
            if stop is None or stop > size:
                return [(0, size)]
            sizes.append((stop, stop - position))
            position = stop
    ends = [group[-1] for group in groups_by_size(sizes, PIECE_BYTES)]
    return list(zip([0, *ends], ends, strict=False))


def _frame_end(stream: IO[bytes], start: int) -> int | None:
    """Where the frame that begins at `start` ends, by the headers of its blocks (RFC 8878); None
    where there is none."""
    stream.seek(start)
    head = stream.read(8)
    if len(head) < 8:
        return None
    magic, length = struct.unpack("<II", head)
    if magic in _SKIPPABLE:
        return start + 8 + int(length)
    if magic != _ZSTD_MAGIC:
        return None
    descriptor = head[4]
    single, content = descriptor >> 5 & 1, descriptor >> 6
    fields = _SIZE_BYTES[content] or single
    position = start + 5 + (not single) + _DICTIONARY_BYTES[descriptor & 3] + fields
    last = 0
    while not last:
        stream.seek(position)
        header = int.from_bytes(block := stream.read(3), "little")
        if len(block) < 3:
            return None
        last, kind, length = header & 1, header >> 1 & 3, header >> 3
        position += 3 + (1 if kind == 1 else length)  # 1: one byte, repeated
    return position + 4 * (descriptor >> 2 & 1)  # the checksum
