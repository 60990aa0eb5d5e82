"""safetensors files written as a stream: what is written need never be in memory at once.

The bytes are those that the safetensors library writes for the same tensors, so that equal weights
stay equal files whoever wrote them. The digest is taken on the way: nothing is read again.
"""

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

# In the library's order: tensors of the last type come first in a file.
_CODES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.int64: "I64",
}
DTYPES = tuple(_CODES)
PIECE_BYTES = 64 << 20


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A tensor's place in a file."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True, kw_only=True)
class Written:
    """A finished file: its digest (64 hex digits) and its bytes."""

    sha256: str
    size: int


def entries_of(tensors: Mapping[str, Tensor]) -> list[Entry]:
    """One entry per tensor, in the order in which they lie in a file."""
    entries = [Entry(name=name, dtype=t.dtype, shape=tuple(t.shape)) for name, t in tensors.items()]
    return sorted(entries, key=lambda e: (-DTYPES.index(e.dtype), e.name))


def flat_pieces(tensor: Tensor) -> Iterator[Tensor]:
    """A tensor's values in order on the CPU, in pieces of at most PIECE_BYTES; views where it lies
    there already."""
    flat = tensor.detach().contiguous().reshape(-1)
    for piece in flat.split(max(1, PIECE_BYTES // flat.element_size())):
        yield piece.cpu()


def write_tensors(
    path: Path,
    entries: Sequence[Entry],
    pieces: Callable[[str], Iterable[Tensor]],
    *,
    metadata: Mapping[str, str] | None = None,
    durable: bool = False,
) -> Written:
    """Writes a file from `entries` (of `entries_of`).

    pieces(name): the values of a tensor in order, flat pieces on the CPU, asked for once and in the
    order of the entries. durable: the bytes are on the disk when this returns. ValueError for
    pieces that do not fill their entry.
    """
    header = _header(entries, metadata)
    digest, size = hashlib.sha256(header), len(header)
    with open(path, "wb") as stream:
        stream.write(header)
        for entry in entries:
            filled = 0
            for piece in pieces(entry.name):
                data = piece.reshape(-1).view(torch.uint8).numpy().data
                digest.update(data)
                stream.write(data)
                filled += len(data)
            if filled != entry.size:
                raise ValueError(f"{entry.name}: {filled} bytes for {entry.size}")
            size += filled
        if durable:
            stream.flush()
            os.fsync(stream.fileno())
    return Written(sha256=digest.hexdigest(), size=size)


def _header(entries: Sequence[Entry], metadata: Mapping[str, str] | None) -> bytes:
    document: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    begin = 0
    for entry in entries:
        document[entry.name] = {
            "dtype": _CODES[entry.dtype],
            "shape": list(entry.shape),
            "data_offsets": [begin, begin + entry.size],
        }
        begin += entry.size
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
