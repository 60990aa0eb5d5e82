"""A stats.json without digests, as LBM data is published, as the leaf of a merge.

Legend: T steps, D dimensions, E cuts.
Moments are taken over as they stand. A digest is made of the stated quantiles, between which the
values are taken to lie evenly (LBM's files state no median: there it is no more than a guess); a
dimension of which two values are stated in all has only these two, in the proportion that the mean
tells.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from foundry_core.config.documents import read_yaml
from foundry_core.data.statistics import digest as digests
from foundry_core.data.statistics.leaf import FieldLeaf, Leaf
from foundry_core.data.statistics.moments import Moments
from foundry_core.data.statistics.summary import FieldStatistics

CONFIG = "preprocessing_config.yaml"
_CUTS = 100


def stated_past(folder: Path) -> int:
    """Steps before the anchor by the preprocessing config beside published data; 0 without one."""
    path = folder / CONFIG
    config = read_yaml(path) if path.is_file() else None
    return int(config.get("past_lowdim_steps", 0)) if isinstance(config, dict) else 0


def leaf_of_summary(fields: Mapping[str, FieldStatistics]) -> Leaf:
    """The numbers of a stats.json as one leaf."""
    windows = max(int(field.count.max()) for field in fields.values())
    return Leaf(windows=windows, fields={n: _field(f) for n, f in sorted(fields.items())})


def _field(stats: FieldStatistics) -> FieldLeaf:
    seen = (stats.count > 0)[:, None]
    n = stats.count[:, None].astype(np.float64)
    m2 = stats.std_per_timestep**2 * np.maximum(n - 1, 0)

    def known(values: np.ndarray, blank: float) -> np.ndarray:
        return np.where(seen, values, blank)

    moments = Moments(
        mass=np.broadcast_to(n, m2.shape),
        mean=known(stats.mean_per_timestep, 0.0),
        m2=known(m2, 0.0),
        low=known(stats.min_per_timestep, np.inf),
        high=known(stats.max_per_timestep, -np.inf),
    )
    digest = digests.empty(stats.steps * stats.dims, 2 * _CUTS)
    for step in np.flatnonzero(stats.count):
        for dim in range(stats.dims):
            _put_row(digest, stats, int(step), dim)
    return FieldLeaf(past=stats.past, count=stats.count, moments=moments, digest=digest)


def _put_row(digest: digests.Centroids, stats: FieldStatistics, step: int, dim: int) -> None:
    n, mean = int(stats.count[step]), stats.mean_per_timestep[step, dim]
    low, high = stats.min_per_timestep[step, dim], stats.max_per_timestep[step, dim]
    stated = {q: values[step, dim] for q, values in stats.quantiles_per_timestep.items()}
    points = {0.0: low, **{q: v for q, v in stated.items() if np.isfinite(v)}, 1.0: high}
    shares, values = np.array(list(points)), np.maximum.accumulate(list(points.values()))
    if np.isin(values, (low, high), invert=True).sum() <= 1:  # one may be interpolated
        upper = (mean - low) / (high - low) if high > low else 1.0
        weights = np.clip([1 - upper, upper], 0.0, 1.0)
        used = weights > 0
        means, weights, flat = np.array([low, high])[used], weights[used], np.ones(used.sum(), bool)
    elif n <= _CUTS:  # as many values, of one observation each
        means, weights = np.interp(np.linspace(0, 1, n), shares, values), np.full(n, 1 / n)
        flat = np.ones(n, bool)
    else:
        tails = (1 - np.cos(np.pi * np.arange(_CUTS + 1) / _CUTS)) / 2  # finest at the ends
        edges = np.union1d(tails, shares)
        at = np.interp(edges, shares, values)
        means, weights, flat = (at[1:] + at[:-1]) / 2, np.diff(edges), at[1:] == at[:-1]
    cells = (step * stats.dims + dim, slice(len(means)))
    digests.put(digest, cells, means, weights * n, flat)
