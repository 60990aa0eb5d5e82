"""tf.train.Example from its wire format: Features{feature name: bytes, floats or int64s}."""

from collections.abc import Iterator
from typing import TypeAlias

import numpy as np

# Byte strings, float32 [n] or int64 [n].
Values: TypeAlias = list[memoryview] | np.ndarray
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def parse_example(data: bytes) -> dict[str, Values]:
    """{feature name: its values}; a feature without values is []. Raises ValueError for bytes that
    are no Example."""
    found: dict[str, Values] = {}
    for features in _messages(memoryview(data), 1):
        for entry in _messages(features, 1):
            name, feature = "", memoryview(b"")
            for number, value in _fields(entry):
                if number == 1 and isinstance(value, memoryview):
                    name = str(value, "utf-8")
                elif number == 2 and isinstance(value, memoryview):
                    feature = value
            found[name] = _values(feature)
    return found


def _values(feature: memoryview) -> Values:
    for kind, held in _fields(feature):
        if not isinstance(held, memoryview) or kind not in (1, 2, 3):
            raise ValueError("no list of values")
        if kind == 1:
            return list(_messages(held, 1))
        items = [value for number, value in _fields(held) if number == 1]
        packed = [one for one in items if isinstance(one, memoryview)]
        if kind == 2:
            return np.frombuffer(b"".join(packed), "<f4")
        loose = [one for one in items if isinstance(one, int)]
        return _signed(np.array(loose, np.uint64)) if loose else _varints(b"".join(packed))
    return []


def _messages(data: memoryview, wanted: int) -> Iterator[memoryview]:
    for number, value in _fields(data):
        if number == wanted:
            if not isinstance(value, memoryview):
                raise ValueError(f"field {number} is no message")
            yield value


def _fields(data: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """(field number, value) of a message: int for a varint, bytes for all else."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        wire = tag & 7
        if wire == _VARINT:
            value, at = _varint(data, at)
            yield tag >> 3, value
            continue
        if wire == _BYTES:
            size, at = _varint(data, at)
        elif wire in (_FIXED64, _FIXED32):
            size = 8 if wire == _FIXED64 else 4
        else:
            raise ValueError(f"wire type {wire} at byte {at}")
        if size > end - at:
            raise ValueError(f"{size} bytes at byte {at} of a message of {end}")
        yield tag >> 3, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for place in range(10):
        if at + place >= len(data):
            break
        byte = data[at + place]
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value & (2**64 - 1), at + place + 1
    raise ValueError(f"no whole number at byte {at}")


def _varints(data: bytes) -> np.ndarray:
    """int64 of packed varints, all at once."""
    octets = np.frombuffer(data, np.uint8)
    if not len(octets):
        return np.zeros(0, np.int64)
    last = np.flatnonzero(octets < 0x80)
    if not len(last) or last[-1] != len(octets) - 1:
        raise ValueError("packed numbers are cut short")
    first = np.concatenate([[0], last[:-1] + 1])
    sizes = last - first + 1
    if sizes.max() > 10:
        raise ValueError("a packed number of more than 10 bytes")
    places = np.arange(len(octets)) - np.repeat(first, sizes)
    parts = (octets & np.uint8(0x7F)).astype(np.uint64) << (7 * places).astype(np.uint64)
    return _signed(np.bitwise_or.reduceat(parts, first))


def _signed(values: np.ndarray) -> np.ndarray:
    return values.view(np.int64)
