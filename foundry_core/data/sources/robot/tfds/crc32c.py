"""CRC-32C (Castagnoli) in NumPy: records are tens of megabytes, too much for a loop over bytes.

The CRC of zeros in front is 0, and crc(A B) is crc(A) moved on by len(B) zero bytes, xor crc(B).
So the data become rows of equal length, a table look-up goes along all rows at once, and rows are
joined in pairs. "Moved on" is a linear map on 32 bits, given by the images of the 32 bits.
"""

from functools import lru_cache

import numpy as np

_POLYNOMIAL = 0x82F63B78


def crc32c(data: bytes | memoryview) -> int:
    """Of any bytes; of b"123456789" 0xE3069283."""
    if len(data) < 64:
        return _short(bytes(data))
    width = 1 << (len(data).bit_length() + 1) // 2
    rows = -(-len(data) // width)
    padded = np.zeros(rows * width, np.uint8)
    start = rows * width - len(data)
    padded[start:] = np.frombuffer(data, np.uint8)
    padded[start : start + 4] ^= 0xFF  # what an initial value of all ones does to the first bytes
    table = _table()
    crc = np.zeros(rows, np.uint32)
    for column in np.ascontiguousarray(padded.reshape(rows, width).T):
        crc = table[(crc ^ column) & 0xFF] ^ (crc >> 8)
    while len(crc) > 1:
        if len(crc) % 2:
            crc = np.concatenate([np.zeros(1, np.uint32), crc])
        crc = _moved(crc[0::2], _zeros(width)) ^ crc[1::2]
        width *= 2
    return int(crc[0]) ^ 0xFFFFFFFF


def masked_crc32c(data: bytes | memoryview) -> int:
    """As TFRecord files store it."""
    crc = crc32c(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _short(data: bytes) -> int:
    table, crc = _table(), 0xFFFFFFFF
    for byte in data:
        crc = int(table[(crc ^ byte) & 0xFF]) ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


@lru_cache(maxsize=1)
def _table() -> np.ndarray:
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, (table >> 1) ^ np.uint32(_POLYNOMIAL), table >> 1)
    return table


@lru_cache(maxsize=64)
def _zeros(count: int) -> np.ndarray:
    """uint32 [32]: what becomes of each bit behind `count` zero bytes, a power of two."""
    if count == 1:
        bits = np.uint32(1) << np.arange(32, dtype=np.uint32)
        moved: np.ndarray = _table()[bits & 0xFF] ^ (bits >> 8)
        return moved
    half = _zeros(count // 2)
    return _moved(half, half)


def _moved(crc: np.ndarray, images: np.ndarray) -> np.ndarray:
    out = np.zeros_like(crc)
    for bit, image in enumerate(images):
        out ^= ((crc >> np.uint32(bit)) & np.uint32(1)) * image
    return out
