"""TFRecord framing: uint64 length, masked CRC of the length, data, masked CRC of the data."""

import struct
from pathlib import Path

from foundry_core.data.robot.episodes import UnusableEpisode
from foundry_core.data.sources.robot.tfds.crc32c import masked_crc32c

_HEADER, _FOOTER = 12, 4
_HINT = "fetch the shard again"


def record_starts(path: Path) -> tuple[list[int], str]:
    """(byte at which each record starts, "") by their lengths alone; where the file is damaged, the
    last is where that begins, and why follows."""
    starts: list[int] = []
    size = path.stat().st_size
    at = 0
    with path.open("rb") as stream:
        while at < size:
            starts.append(at)
            stream.seek(at)
            try:
                at += _HEADER + _length(stream.read(_HEADER), at, size, path) + _FOOTER
            except UnusableEpisode as error:
                return starts, error.message
    return starts, ""


def read_record(path: Path, start: int) -> bytes:
    """The data of the record at byte `start`. Raises UnusableEpisode where a length leads out of
    the file or a CRC does not fit."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        stream.seek(start)
        length = _length(stream.read(_HEADER), start, size, path)
        data = stream.read(length)
        stored = stream.read(_FOOTER)
    if len(stored) < _FOOTER or struct.unpack("<I", stored)[0] != masked_crc32c(data):
        raise UnusableEpisode(f"{path}: the record at byte {start} fails its CRC", _HINT)
    return data


def _length(header: bytes, start: int, size: int, path: Path) -> int:
    if start == 0 and header[:2] == b"\x1f\x8b":
        raise UnusableEpisode(f"{path} is compressed by gzip as a whole", "gunzip it")
    if len(header) < _HEADER:
        raise UnusableEpisode(f"{path} is cut short at byte {start}", _HINT)
    length, crc = struct.unpack("<QI", header)
    if crc != masked_crc32c(header[:8]):
        raise UnusableEpisode(f"{path}: the length at byte {start} fails its CRC", _HINT)
    if length > size - start - _HEADER - _FOOTER:
        raise UnusableEpisode(
            f"{path} is cut short: the record at byte {start} takes {length:,} bytes", _HINT
        )
    return int(length)
