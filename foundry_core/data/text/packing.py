"""Documents → rows of context+1 tokens, one long stream cut at fixed places."""

import numpy as np

from foundry_core.errors import FoundryError


def token_dtype(vocab_size: int) -> np.dtype:
    """uint16 as long as every id fits (half the bytes), else uint32."""
    return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)


def join_documents(documents: list[list[int]], eos_id: int, dtype: np.dtype) -> np.ndarray:
    """One array: each document followed by eos."""
    lengths = np.array([len(document) + 1 for document in documents], dtype=np.int64)
    stream = np.empty(int(lengths.sum()), dtype=dtype)
    ends = np.cumsum(lengths) - 1
    inside = np.ones(len(stream), dtype=bool)
    inside[ends] = False
    stream[ends] = eos_id
    stream[inside] = np.fromiter(
        (token for document in documents for token in document), dtype, len(stream) - len(documents)
    )
    return stream


class Packer:
    """Cuts a stream that arrives in pieces into rows [n, row_length]; where a piece ends leaves no
    trace in the rows. `finish` gives what is left over, which the caller pads or counts."""

    def __init__(self, row_length: int, dtype: np.dtype) -> None:
        if row_length < 2:
            raise FoundryError(f"a row of {row_length} tokens has nothing to predict")
        self._row = row_length
        self._rest = np.empty(0, dtype=dtype)

    def add(self, stream: np.ndarray) -> np.ndarray:
        """Rows [n, row_length] that are full now."""
        joined = np.concatenate([self._rest, stream.astype(self._rest.dtype, copy=False)])
        whole = len(joined) // self._row * self._row
        self._rest = joined[whole:].copy()
        return joined[:whole].reshape(-1, self._row)

    def finish(self) -> np.ndarray:
        """The tokens that fill no row; the packer is empty then."""
        rest, self._rest = self._rest, self._rest[:0]
        return rest
