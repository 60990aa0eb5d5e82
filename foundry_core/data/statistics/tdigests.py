"""To and from the package `tdigest`: its objects, and the form in which it stores them.

A row of `Centroids` and a TDigest hold the same thing, weighted means. What the package does
not know is which centroids are many equal values (`flat`): going through it, only single values and
the whole of a few-valued signal stay exact.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foundry_core.data.statistics.digest import FEW_VALUES, Centroids, empty, put
from foundry_core.data.statistics.leaf import FieldLeaf, Leaf
from foundry_core.data.statistics.moments import Moments, stack
from foundry_core.errors import FoundryError
from foundry_core.files import read_json

if TYPE_CHECKING:
    from tdigest import TDigest

SUFFIX = ".tdigest.json"
DELTA, K = 0.01, 25


# `tdigest.TDigest.to_dict`: {n, delta, K, centroids: [{m: mean, c: count}]}.
StoredDigest = dict[str, Any]


def stored_digest(means: np.ndarray, counts: np.ndarray) -> StoredDigest:
    """Of one row. Equal means become one centroid, as the package's tree needs them."""
    weights = dict.fromkeys(means.tolist(), 0.0)
    for mean, count in zip(means.tolist(), counts.tolist(), strict=True):
        weights[mean] += count
    return {
        "n": sum(weights.values()),
        "delta": DELTA,
        "K": K,
        "centroids": [{"m": mean, "c": count} for mean, count in weights.items()],
    }


def to_tdigest(stored: StoredDigest) -> "TDigest":
    """The package's object with exactly these centroids; its own `update_from_dict` may merge
    some."""
    from tdigest import TDigest
    from tdigest.tdigest import Centroid

    digest = TDigest(stored.get("delta", DELTA), stored.get("K", K))
    for centroid in stored["centroids"]:
        digest.C.insert(centroid["m"], Centroid(centroid["m"], centroid["c"]))
        digest.n += centroid["c"]
    return digest


def from_tdigest(rows: Sequence["TDigest"]) -> Centroids:
    """One row per digest."""
    listed = [row.centroids_to_list() for row in rows]
    out = empty(len(rows), max(map(len, listed), default=0))
    for number, centroids in enumerate(listed):
        used = len(centroids)
        means, counts = (np.array([c[key] for c in centroids], float) for key in ("m", "c"))
        # A continuous signal of so many values would have more centroids.
        few = used <= FEW_VALUES and rows[number].n >= FEW_VALUES * used
        put(out, (number, slice(used)), means, counts, few | (counts <= 1))
    return out


def leaf_of(fields: Mapping[str, Sequence["TDigest"]]) -> Leaf:
    """Statistics from digests alone, {field: one per dimension}: every observation is a window of
    one step.

    Mean and quantiles are those of the digests; extremes and spread are those of their centroids,
    hence a little too narrow. Raises FoundryError for digests that are empty or that differ in
    count within a field.
    """
    leaves = {name: _field(name, digests) for name, digests in sorted(fields.items())}
    windows = max((int(leaf.count[0]) for leaf in leaves.values()), default=0)
    return Leaf(windows=windows, fields=leaves)


def _field(name: str, digests: Sequence["TDigest"]) -> FieldLeaf:
    sizes = {round(float(digest.n)) for digest in digests}
    if len(sizes) != 1 or sizes == {0}:
        raise FoundryError(
            f"the digests of field {name!r} hold {sorted(sizes)} values",
            "give one digest per dimension, all of the same observations",
        )
    rows = from_tdigest(digests)
    used = rows.counts > 0
    means = np.where(used, rows.means, 0.0)
    mass = rows.counts.sum(axis=1)
    mean = (means * rows.counts).sum(axis=1) / mass
    m2 = (rows.counts * np.where(used, means - mean[:, None], 0.0) ** 2).sum(axis=1)
    high = np.where(used, rows.means, -np.inf).max(axis=1)
    low = rows.means.min(axis=1)
    moments = Moments(mass=mass, mean=mean, m2=m2, low=low, high=high)
    count = np.array([sizes.pop()], dtype=np.int64)
    return FieldLeaf(past=0, count=count, moments=stack([moments]), digest=rows)


def load_tdigests(path: Path) -> dict[str, list["TDigest"]]:
    """Of a file {field: one digest per dimension, as the package stores it}, whoever wrote it.
    Raises FoundryError for any other."""
    try:
        return {name: [to_tdigest(row) for row in rows] for name, rows in read_json(path).items()}
    except FileNotFoundError:
        raise FoundryError(f"no digests at {str(path)!r}", "check the path") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FoundryError(
            f"{str(path)!r} is no file of digests: {error!r}",
            "expected {field: [TDigest.to_dict() of each dimension]}",
        ) from error
