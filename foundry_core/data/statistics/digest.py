"""Many t-digests at once: rows of weighted centroids in padded NumPy arrays.

Legend: R rows (one digest each: a dimension, or a step and a dimension), W centroids per row.

A digest here is what the package `tdigest` stores, (mean, count) pairs sorted by mean; building it
differs. The package inserts values one by one into a tree (10^4-10^5 values/s). Here a whole sorted
column is cut at the quantiles where the scale function k1(q) = B/pi * (asin(2q-1) + pi/2) passes
an integer (Dunning & Ertl, "Computing extremely accurate quantiles using t-digests"), which is one
`reduceat` for all columns and depends on nothing but the multiset of values.

Every centroid carries a `flat` mark: all its values are equal. Flat centroids are atoms of the
distribution, at which quantiles stay exact instead of being interpolated.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

FEW_VALUES = 16
DISTINCT_BOUND = 64  # far below the centroids of a leaf, so that fewer values are all kept apart


@dataclass(frozen=True, kw_only=True)
class Centroids:
    """R digests. means, counts: float64 [R, W]; flat: bool [R, W]; rows sorted by mean.

    Unused cells lie at the end of a row and have count 0 and mean +inf.
    """

    means: np.ndarray
    counts: np.ndarray
    flat: np.ndarray

    @property
    def rows(self) -> int:
        return self.means.shape[0]

    @property
    def width(self) -> int:
        return self.means.shape[1]

    def each(self, change: Callable[[np.ndarray], np.ndarray]) -> "Centroids":
        """With every array changed in the same way."""
        return Centroids(**{name: change(cells) for name, cells in vars(self).items()})

    def scaled(self, factor: float) -> "Centroids":
        """The same values, each weighing `factor` times as much."""
        return replace(self, counts=self.counts * factor)

    def row(self, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(means, counts, flat) of one digest without its unused cells."""
        used = int(np.count_nonzero(self.counts[index]))
        return self.means[index, :used], self.counts[index, :used], self.flat[index, :used]


def empty(rows: int, width: int = 0) -> Centroids:
    """Digests of no values, with room for `width` centroids each."""
    shape = (rows, width)
    return Centroids(
        means=np.full(shape, np.inf), counts=np.zeros(shape), flat=np.zeros(shape, bool)
    )


def put(into: Centroids, at: Any, means: Any, counts: Any, flat: Any) -> None:
    """Fills the cells `at`, any NumPy index."""
    into.means[at], into.counts[at], into.flat[at] = means, counts, flat


def from_values(values: np.ndarray, limit: int) -> Centroids:
    """Digests of unit-weight values [n, R]; at most about `limit` centroids per row.

    A column with at most `limit` distinct values is kept exactly, as (value, count) atoms; in
    others, values that hold 1/limit of the mass or more stay atoms of their own.
    """
    columns = np.ascontiguousarray(values.T, dtype=np.float64)
    columns.sort(axis=1)
    columns += 0.0  # -0.0 and 0.0 are one value
    rows, n = columns.shape
    if n == 0:
        return empty(rows)
    if n <= limit:
        ones = np.ones_like(columns)
        return _merge_cells(columns, ones, ones.astype(bool), limit)
    distinct = 1 + np.count_nonzero(columns[:, 1:] != columns[:, :-1], axis=1)
    atomic = distinct <= limit
    if not atomic.all():
        run = max(n // limit, 1)
        atomic |= (columns[:, run:] == columns[:, :-run]).any(axis=1)
    if not atomic.any():
        return _cut_sorted(columns, limit)
    atoms = _atoms(columns[atomic])
    exact = _merge_cells(atoms.means, atoms.counts, atoms.flat, limit)
    return (
        exact if atomic.all() else _interleave(exact, _cut_sorted(columns[~atomic], limit), atomic)
    )


def union(parts: Sequence[Centroids]) -> Centroids:
    """All centroids of the parts, sorted within each row; nothing is merged.

    Equal means keep the order of the parts, so canonical order of parts gives canonical bytes.
    """
    joined = Centroids(
        **{k: np.concatenate([vars(p)[k] for p in parts], axis=1) for k in vars(parts[0])}
    )
    order = np.argsort(joined.means, axis=1, kind="stable")
    width = int(np.count_nonzero(joined.counts, axis=1).max()) if joined.counts.size else 0
    return joined.each(lambda cells: np.take_along_axis(cells, order, 1)[:, :width])


def compress(digest: Centroids, limit: int) -> Centroids:
    """At most about `limit` centroids per row; rows of few distinct atoms stay exact."""
    return _merge_cells(digest.means, digest.counts, digest.flat, limit)


def fold_steps(digest: Centroids, steps: int) -> Centroids:
    """Rows (step, dim) → rows (dim): the digest over all steps, from the digests per step."""
    dims = digest.rows // steps

    def fold(cells: np.ndarray) -> np.ndarray:
        return cells.reshape(steps, dims, -1).transpose(1, 0, 2).reshape(dims, -1)

    return union([digest.each(fold)])


def few_valued(digest: Centroids) -> np.ndarray:
    """bool [R]: the row is a discrete signal, whose quantiles must be values that occurred.

    Two values or fewer always are; up to FEW_VALUES are when each occurs 16 times on average, so
    that a handful of continuous measurements is not taken for a discrete signal.
    """
    answer = np.zeros(digest.rows, bool)
    for index in range(digest.rows):
        means, counts, flat = digest.row(index)
        if len(means) and flat.all():
            distinct = 1 + np.count_nonzero(means[1:] != means[:-1])
            answer[index] = distinct <= 2 or (
                distinct <= FEW_VALUES and counts.sum() >= 16 * distinct
            )
    return answer


def concentration(digest: Centroids) -> tuple[np.ndarray, np.ndarray]:
    """([R] share of the most frequent value, int64 [R] how many values there are, at most
    DISTINCT_BOUND + 1). A share is that of an atom: exact from half a percent of a leaf up."""
    share, distinct = np.zeros(digest.rows), np.zeros(digest.rows, dtype=np.int64)
    for index in range(digest.rows):
        means, counts, flat = digest.row(index)
        if not len(means):
            continue
        starts = np.flatnonzero(np.r_[True, means[1:] != means[:-1]])
        atoms = np.add.reduceat(np.where(flat, counts, 0.0), starts)
        share[index] = atoms.max() / counts.sum()
        many = DISTINCT_BOUND + 1
        distinct[index] = min(len(starts), many) if flat.all() else many
    return share, distinct


def mass_outside(digest: Centroids, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """[R]: weight of what lies below low or above high [R]; a centroid counts by its mean."""
    outside = (digest.means < low[:, None]) | (digest.means > high[:, None])
    return np.sum(digest.counts * outside, axis=1)


def quantiles(
    digest: Centroids,
    qs: Sequence[float],
    low: np.ndarray,
    high: np.ndarray,
    discrete: np.ndarray,
    unit: float | None = 1.0,
) -> np.ndarray:
    """[len(qs), R]. low, high: exact extremes [R]. Empty rows give NaN.

    unit: weight of one observation. With it, all-singleton rows give numpy.quantile's linear
    interpolation exactly (rank q(n-1)); None (unequal weights) uses mass fractions instead.
    Discrete rows give the smallest observed value whose cumulative share reaches q.
    """
    answer = np.full((len(qs), digest.rows), np.nan)
    targets = np.asarray(qs, dtype=np.float64)
    gap = 0.0 if unit is None else unit
    for index in range(digest.rows):
        means, counts, flat = digest.row(index)
        if not len(means):
            continue
        cumulative = np.cumsum(counts)
        total = cumulative[-1]
        if discrete[index]:
            positions = np.searchsorted(cumulative, targets * total * (1 - 1e-12))
            answer[:, index] = means[np.minimum(positions, len(means) - 1)]
            continue
        start, stop = cumulative - counts, np.maximum(cumulative - gap, cumulative - counts)
        centre = (start + stop) / 2
        nodes = np.empty((len(means), 2))
        nodes[:, 0] = np.where(flat, start, centre)
        nodes[:, 1] = np.where(flat, stop, centre)
        where = np.concatenate([[0.0], nodes.ravel(), [max(total - gap, 0.0)]])
        what = np.concatenate([[low[index]], np.repeat(means, 2), [high[index]]])
        answer[:, index] = np.interp(targets * max(total - gap, 0.0), where, what)
    return np.clip(answer, low, high)


def _scale(q: np.ndarray, limit: int) -> np.ndarray:
    return np.floor(limit / np.pi * (np.arcsin(np.clip(2 * q - 1, -1, 1)) + np.pi / 2))


def _cut_sorted(columns: np.ndarray, limit: int) -> Centroids:
    """Sorted unit-weight [R, n] cut at common positions: the scale depends on rank only."""
    n = columns.shape[1]
    ids = _scale((np.arange(n) + 0.5) / n, limit)
    starts = np.flatnonzero(np.r_[True, ids[1:] != ids[:-1]])
    sizes = np.diff(np.r_[starts, n]).astype(np.float64)
    first, last = columns[:, starts], columns[:, np.r_[starts[1:], n] - 1]
    means = np.clip(np.add.reduceat(columns, starts, axis=1) / sizes, first, last)
    flat = first == last
    return Centroids(
        means=np.where(flat, first, means),
        counts=np.broadcast_to(sizes, means.shape).copy(),
        flat=flat,
    )


def _atoms(columns: np.ndarray) -> Centroids:
    """Sorted unit-weight [R, n] as exact (value, count) atoms."""
    rows, n = columns.shape
    new = np.ones(columns.shape, bool)
    new[:, 1:] = columns[:, 1:] != columns[:, :-1]
    row, position = np.nonzero(new)
    flat_start = row * n + position
    counts = np.diff(np.r_[flat_start, rows * n]).astype(np.float64)
    return _pad(rows, row, columns[new], counts, np.ones(len(row), bool))


def _merge_cells(means: np.ndarray, counts: np.ndarray, flat: np.ndarray, limit: int) -> Centroids:
    rows = means.shape[0]
    used = counts > 0
    if not used.any():
        return empty(rows)
    row = np.nonzero(used)[0]
    m, c, f = means[used], counts[used], flat[used]
    fresh = np.r_[True, (row[1:] != row[:-1]) | (m[1:] != m[:-1])]
    distinct = np.bincount(row[fresh], minlength=rows)
    rough = np.bincount(row[~f], minlength=rows) > 0
    exact = (distinct <= limit) & ~rough
    total = counts.sum(axis=1)
    middle = (np.cumsum(counts, axis=1) - counts / 2)[used] / total[row]
    group = np.cumsum(fresh) - 1
    heavy = np.bincount(group, c) >= total[row[fresh]] / limit
    heavy &= np.bincount(group, ~f) == 0
    bucket = np.where(exact[row] | heavy[group], -1 - group, _scale(middle, limit))
    starts = np.flatnonzero(np.r_[True, (row[1:] != row[:-1]) | (bucket[1:] != bucket[:-1])])
    weight = np.add.reduceat(c, starts)
    first, last = m[starts], m[np.r_[starts[1:], len(m)] - 1]
    mean = np.clip(np.add.reduceat(c * m, starts) / weight, first, last)
    equal = first == last
    one_atom = np.logical_and.reduceat(f, starts) & equal
    return _pad(rows, row[starts], np.where(equal, first, mean), weight, one_atom)


def _pad(
    rows: int, row: np.ndarray, means: np.ndarray, counts: np.ndarray, flat: np.ndarray
) -> Centroids:
    """Row-sorted flat cells → padded arrays."""
    sizes = np.bincount(row, minlength=rows)
    column = np.arange(len(row)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    out = empty(rows, int(sizes.max()))
    put(out, (row, column), means, counts, flat)
    return out


def _interleave(yes: Centroids, no: Centroids, mask: np.ndarray) -> Centroids:
    out = empty(len(mask), max(yes.width, no.width))
    for part, rows in ((yes, mask), (no, ~mask)):
        put(out, (rows, slice(part.width)), part.means, part.counts, part.flat)
    return out
