"""What each dimension of a raw field spans: ranges in a physical unit show a wrong one, and few
different values a gripper."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rich.markup import escape
from rich.table import Table

from foundry_core.errors import FoundryError

MANY = 10
"""Different values, of which more are not counted."""
# Of a long vector: dimensions shown at its start and at its end.
_FIRST, _LAST = 12, 4


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """name: what the source calls it, "" where it does not. values: how many different ones."""

    name: str
    low: float
    high: float
    values: int


@dataclass(frozen=True, kw_only=True)
class RawField:
    """dims per step; low, high, values: over all of them and over the episodes that were read;
    values at most MANY."""

    dims: int
    low: float
    high: float
    values: int
    dimensions: tuple[Dimension, ...] = ()

    @property
    def few(self) -> tuple[int, ...]:
        """Dimensions of two values or a few more, where others have many: grippers, maybe."""
        counts = [one.values for one in self.dimensions]
        if max(counts, default=0) < MANY:
            return ()
        return tuple(number for number, count in enumerate(counts) if 1 < count < MANY)


def spanned(name: str, parts: Sequence[np.ndarray], names: Sequence[str] = ()) -> RawField:
    """Of a field in some episodes, [L, ...] each. names: of its dimensions. FoundryError where
    their widths differ."""
    flat = [np.asarray(one, np.float64).reshape(len(one), -1) for one in parts]
    widths = {part.shape[1] for part in flat}
    if len(widths) > 1:
        raise FoundryError(f"field {name!r} has {sorted(widths)} values in different episodes")
    values = np.concatenate(flat)
    low, high, count = _span(values)
    called = names if len(names) == values.shape[1] else [""] * values.shape[1]
    dimensions = []
    for column, one in zip(values.T, called, strict=True):
        least, most, different = _span(column)
        dimensions.append(Dimension(name=one, low=least, high=most, values=different))
    return RawField(
        dims=values.shape[1], low=low, high=high, values=count, dimensions=tuple(dimensions)
    )


def _span(values: np.ndarray) -> tuple[float, float, int]:
    """(low, high, different ones) of what is finite."""
    known = values[np.isfinite(values)]
    if not known.size:
        return float("nan"), float("nan"), 0
    return float(known.min()), float(known.max()), min(MANY, len(np.unique(known)))


def field_table(fields: Mapping[str, RawField], title: str = "fields") -> Table:
    """A row per field and, below it, one per dimension; the middle of long vectors is folded, but
    for dimensions of few values."""
    table = Table(title=title, title_justify="left")
    for heading in ("field", "low", "high", "values"):
        table.add_column(
            heading,
            justify="left" if heading == "field" else "right",
            overflow="fold",
        )
    for name, one in fields.items():
        table.add_row(escape(f"{name} [{one.dims}]"), *_numbers(one.low, one.high, one.values))
        if one.dims > 1 or any(part.name for part in one.dimensions):
            for row in _rows(one):
                table.add_row(*row)
    return table


def _rows(found: RawField) -> Iterator[tuple[str, ...]]:
    parts, few = found.dimensions, found.few
    folded: list[int] = []
    for number, part in enumerate(parts):
        long = len(parts) > _FIRST + _LAST + 1
        if long and _FIRST <= number < len(parts) - _LAST and number not in few:
            folded.append(number)
            continue
        yield from _fold(parts, folded)
        folded = []
        label = escape(f"  {number} {part.name}".rstrip())
        yield (label, *_numbers(part.low, part.high, part.values))


def _fold(parts: Sequence[Dimension], folded: Sequence[int]) -> Iterator[tuple[str, ...]]:
    if not folded:
        return
    held = [parts[number] for number in folded]
    label = f"  {folded[0]} to {folded[-1]}" if len(held) > 1 else f"  {folded[0]}"
    low = np.fmin.reduce([one.low for one in held])
    high = np.fmax.reduce([one.high for one in held])
    yield (f"[dim]{label}", *_numbers(low, high, max(one.values for one in held)))


def _numbers(low: float, high: float, values: int) -> tuple[str, str, str]:
    return f"{low:.4g}", f"{high:.4g}", f"{MANY}+" if values == MANY else str(values)
