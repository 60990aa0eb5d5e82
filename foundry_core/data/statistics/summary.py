"""Leaves → the published numbers of each field.

Legend: T steps, D dimensions. Steps are aligned by the anchor: step s of the summary lies
s - past steps after it, whatever the horizons of the leaves.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np

from foundry_core.data.statistics import digest as digests
from foundry_core.data.statistics import moments as moment_ops
from foundry_core.data.statistics.digest import Centroids
from foundry_core.data.statistics.leaf import FieldLeaf, Leaf
from foundry_core.data.statistics.moments import Moments
from foundry_core.data.statistics.tdigests import StoredDigest, stored_digest
from foundry_core.errors import FoundryError

QUANTILES = (0.01, 0.02, 0.05, 0.5, 0.95, 0.98, 0.99)
STORED_CENTROIDS = 256
ID_DIGITS = 16


@dataclass(frozen=True, kw_only=True)
class FieldStatistics:
    """Statistics of one field; float64, [D] globally and [T, D] per step, NaN where count is 0.

    count: int64 [T] valid observations per step. past: index of the anchor step.
    quantiles: {q: [D]}; tdigest: one digest per dimension, as the package `tdigest` stores it.
    mode_share [D]: of the most frequent value; distinct, int64 [D]: number of values, counted up to
    DISTINCT_BOUND + 1; NaN and 0 where a file does not say. datasets: ids of the leaves.
    """

    past: int
    count: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    min: np.ndarray
    max: np.ndarray
    mean_per_timestep: np.ndarray
    std_per_timestep: np.ndarray
    min_per_timestep: np.ndarray
    max_per_timestep: np.ndarray
    quantiles: dict[float, np.ndarray]
    quantiles_per_timestep: dict[float, np.ndarray]
    tdigest: list[StoredDigest]
    discrete: np.ndarray
    mode_share: np.ndarray
    distinct: np.ndarray
    datasets: tuple[str, ...]

    @property
    def dims(self) -> int:
        return len(self.mean)

    @property
    def steps(self) -> int:
        return len(self.count)

    def to_dict(self) -> dict[str, Any]:
        """The keys of the published stats.json, and our own beside them."""
        entry: dict[str, Any] = {
            "past": self.past,
            "count": self.count.tolist(),
            "percentile_sample_count": self.count.tolist(),
            "discrete": self.discrete.tolist(),
            "mode_share": _listed(self.mode_share),
            "distinct": self.distinct.tolist(),
            "datasets": list(self.datasets),
            "tdigest": self.tdigest,
        }
        for name in ("mean", "std", "min", "max"):
            entry[name] = _listed(getattr(self, name))
            entry[f"{name}_per_timestep"] = _listed(getattr(self, f"{name}_per_timestep"))
        for q in QUANTILES:
            entry[percentile_key(q)] = _listed(self.quantiles[q])
            entry[f"{percentile_key(q)}_per_timestep"] = _listed(self.quantiles_per_timestep[q])
        return entry

    @classmethod
    def from_dict(cls, entry: dict[str, Any], past: int = 0) -> "FieldStatistics":
        """Of our own stats.json, or of a published one (no digest, no median: NaN there). past:
        where the entry has none."""
        mean = _array(entry["mean"])
        shape = _array(entry["mean_per_timestep"]).shape
        names = [f"{m}{p}" for m in ("mean", "std", "min", "max") for p in ("", "_per_timestep")]

        def quantiles(suffix: str, shape: tuple[int, ...]) -> dict[float, np.ndarray]:
            unknown = np.full(shape, np.nan)
            return {q: _array(entry.get(percentile_key(q) + suffix, unknown)) for q in QUANTILES}

        return cls(
            past=entry.get("past", past),
            count=np.broadcast_to(np.asarray(entry["count"], dtype=np.int64), shape[:1]),
            **{name: _array(entry[name]) for name in names},
            quantiles=quantiles("", mean.shape),
            quantiles_per_timestep=quantiles("_per_timestep", shape),
            tdigest=entry.get("tdigest", []),
            discrete=np.asarray(entry.get("discrete", [False] * len(mean)), dtype=bool),
            mode_share=_array(entry.get("mode_share", np.full(len(mean), np.nan))),
            distinct=np.asarray(entry.get("distinct", [0] * len(mean)), dtype=np.int64),
            datasets=tuple(entry.get("datasets", ())),
        )


def percentile_key(q: float) -> str:
    """The published name of a quantile: 0.05 is percentile_5."""
    return f"percentile_{round(q * 100)}"


def summarise(leaves: Sequence[Leaf]) -> dict[str, FieldStatistics]:
    """Leaves must come in canonical order: Chan's formula rounds differently in another one."""
    names = sorted({name for leaf in leaves for name in leaf.fields})
    return {
        name: _summarise_field(
            combine_field(leaves, name), [leaf for leaf in leaves if name in leaf.fields]
        )
        for name in names
    }


def combine_field(leaves: Sequence[Leaf], name: str) -> FieldLeaf:
    """All leaves' data of one field on a common window, nothing compressed."""
    parts = [(leaf.scale, leaf.fields[name]) for leaf in leaves if name in leaf.fields]
    dims = {part.dims for _, part in parts}
    if len(dims) > 1:
        raise FoundryError(
            f"field {name!r} has {' and '.join(map(str, sorted(dims)))} dimensions in different "
            "datasets",
            "one name must mean one signal: rename the field in one of the conversions",
        )
    past = max(part.past for _, part in parts)
    future = max(part.steps - part.past for _, part in parts)
    aligned = [_align(part, past, past + future).scaled(scale) for scale, part in parts]
    moments = aligned[0].moments
    for part in aligned[1:]:
        moments = moment_ops.combine(moments, part.moments)
    return FieldLeaf(
        past=past,
        count=np.sum([part.count for part in aligned], axis=0),
        moments=moments,
        digest=digests.union([part.digest for part in aligned]),
    )


def _align(part: FieldLeaf, past: int, steps: int) -> FieldLeaf:
    """On a window of more steps, where nothing was observed."""
    before = past - part.past
    after = steps - before - part.steps
    if not before and not after:
        return part

    def pad(array: np.ndarray, fill: float, per_step: int = 1) -> np.ndarray:
        widths = [(before * per_step, after * per_step), *[(0, 0)] * (array.ndim - 1)]
        return np.pad(array, widths, constant_values=fill)

    blank = {"mass": 0.0, "mean": 0.0, "m2": 0.0, "low": np.inf, "high": -np.inf}
    return FieldLeaf(
        past=past,
        count=pad(part.count, 0),
        moments=Moments(**{k: pad(getattr(part.moments, k), v) for k, v in blank.items()}),
        digest=Centroids(
            means=pad(part.digest.means, np.inf, part.dims),
            counts=pad(part.digest.counts, 0, part.dims),
            flat=pad(part.digest.flat, False, part.dims),
        ),
    )


def _summarise_field(part: FieldLeaf, leaves: Sequence[Leaf]) -> FieldStatistics:
    steps, dims, per_step = part.steps, part.dims, part.moments
    unit = 1.0 if all(leaf.scale == 1.0 for leaf in leaves) else None
    total = moment_ops.empty((dims,))
    for step in range(steps):
        total = moment_ops.combine(total, per_step.each(itemgetter(step)))
    everything = digests.fold_steps(part.digest, steps)
    discrete = digests.few_valued(everything)
    mode_share, distinct = digests.concentration(everything)
    stored = digests.compress(everything, STORED_CENTROIDS)
    q_all = _quantiles(everything, stored, total, discrete, unit)
    q_step = _quantiles(
        part.digest,
        digests.compress(part.digest, STORED_CENTROIDS),
        per_step,
        np.tile(discrete, steps),
        unit,
    ).reshape(len(QUANTILES), steps, dims)
    seen = (part.count > 0)[:, None]

    def per(array: np.ndarray) -> np.ndarray:
        return np.where(seen, array, np.nan)

    return FieldStatistics(
        past=part.past,
        count=part.count,
        mean=total.mean,
        std=total.std(np.broadcast_to(part.count.sum(), (dims,))),
        min=total.low,
        max=total.high,
        mean_per_timestep=per(per_step.mean),
        std_per_timestep=per_step.std(np.broadcast_to(part.count[:, None], (steps, dims))),
        min_per_timestep=per(per_step.low),
        max_per_timestep=per(per_step.high),
        quantiles=dict(zip(QUANTILES, q_all, strict=True)),
        quantiles_per_timestep=dict(zip(QUANTILES, q_step, strict=True)),
        tdigest=[stored_digest(*stored.row(dim)[:2]) for dim in range(dims)],
        discrete=discrete,
        mode_share=mode_share,
        distinct=distinct,
        datasets=tuple(sorted({leaf.id[:ID_DIGITS] for leaf in leaves})),
    )


def _quantiles(
    loose: Centroids, packed: Centroids, extremes: Moments, discrete: np.ndarray, unit: float | None
) -> np.ndarray:
    """[Q, R]. Rows made of atoms alone are read from all of them; others from the packed digest:
    equal cuts of many leaves make their centroids bunch, and a bunch read one by one is a step."""
    low, high = extremes.low.ravel(), extremes.high.ravel()
    exact = (loose.flat | (loose.counts == 0)).all(axis=1)
    answer = digests.quantiles(packed, QUANTILES, low, high, discrete, unit)
    if exact.any():
        rows = loose.each(lambda cells: cells[exact])
        answer[:, exact] = digests.quantiles(
            rows, QUANTILES, low[exact], high[exact], discrete[exact], unit
        )
    return answer


def _listed(array: np.ndarray) -> list:
    """Nested lists with None for NaN: JSON has no NaN."""
    holes = np.isnan(array)
    if holes.any():
        array = array.astype(object)
        array[holes] = None
    return array.tolist()


def _array(values: Any) -> np.ndarray:
    return np.asarray(values, dtype=np.float64)  # None becomes NaN
