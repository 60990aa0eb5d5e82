"""Several short samples in one row, as documents that do not see each other: less padding, and
attention over rows of one length.

Which samples a step, a rank and a micro-batch have is decided before this, and sums over what they
predict do not ask which row a token lies in. So nothing of the order of samples, of resuming or of
the ranks' shares depends on it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from foundry_core.errors import FoundryError
from foundry_core.models.layers import document_offsets

_SHAPES = 16
"""Numbers of rows that there are with `fixed`, at most."""


@dataclass(frozen=True, kw_only=True)
class Packer:
    """length: tokens of a row. fixed: rows are made up to one of few numbers, because each shape
    would be a compilation."""

    length: int
    fixed: bool = False

    def places(self, lengths: Tensor) -> "Places":
        """Of samples of int64 [B] tokens each. FoundryError for one that no row holds."""
        sizes = lengths.tolist()
        if max(sizes) > self.length:
            raise FoundryError(
                f"a captioned sample has {max(sizes)} tokens with those of its images, "
                f"data.captions.packing.length is {self.length}",
                "raise packing.length, or lower data.captions.max_tokens",
            )
        begins, rows = first_fit(sizes, self.length)
        if self.fixed:
            some = -(-len(sizes) // _SHAPES)
            rows = -(-rows // some) * some
        return Places(begins=torch.tensor(begins), lengths=lengths, rows=rows, length=self.length)


def first_fit(sizes: Sequence[int], length: int) -> tuple[list[int], int]:
    """(where each begins in the rows laid end to end, number of rows): the longest first, each into
    the first row that has room (at most 11/9 of the fewest rows, and one more; Johnson 1973)."""
    begins, filled = [0] * len(sizes), list[int]()
    for sample in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        size = sizes[sample]
        row = next((r for r, used in enumerate(filled) if used + size <= length), len(filled))
        if row == len(filled):
            filled.append(0)
        begins[sample] = row * length + filled[row]
        filled[row] += size
    return begins, len(filled)


@dataclass(frozen=True, kw_only=True)
class Places:
    """Where samples lie: begins and lengths int64 [B], in rows laid end to end."""

    begins: Tensor
    lengths: Tensor
    rows: int
    length: int

    @property
    def order(self) -> Tensor:
        """Samples as they come in the rows, int64 [B]."""
        return self.begins.argsort()

    def of(self, real: Tensor) -> Tensor:
        """Where the real tokens of padded rows come to lie, int64 [n], from bool [B,T] with
        `lengths` of each row True and nothing before them False."""
        within = torch.arange(real.shape[1]).expand_as(real)
        return (self.begins[:, None] + within)[real]

    def fill(self, values: Tensor, real: Tensor, empty: int) -> Tensor:
        """[rows, length] of values [B,T]; `empty` where no sample lies."""
        packed = torch.full((self.rows * self.length,), empty, dtype=values.dtype)
        packed[self.of(real)] = values[real]
        return packed.view(self.rows, self.length)

    def segments(self) -> Tensor:
        """int32 [rows, length]: number of the sample within its row; what is left of a row is one
        more, which nobody learns from."""
        starts = torch.zeros(self.rows * self.length + 1, dtype=torch.int32)
        starts[self.begins] = 1
        starts[self.begins + self.lengths] = 1  # of the next one, or of the rest
        starts = starts[:-1].view(self.rows, self.length)
        return starts.cumsum(dim=1, dtype=torch.int32)

    def visibility(self) -> dict[str, Tensor]:
        """segments, and their offsets as `Documents` has them."""
        segments = self.segments()
        return {"segments": segments, "offsets": document_offsets(segments)}
