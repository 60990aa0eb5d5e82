"""Merging statistics so that neither order nor grouping can be seen in the result.

Merging two compressed digests loses something, and Chan's formula rounds, so merge(merge(a, b), c)
of compressed parts differs from merge(a, b, c) in the last digits. Here merged statistics ARE the
multiset of their leaves (one per dataset, at most about 200 centroids per step and dimension,
never altered), sorted by content digest; every number is computed from all leaves in that order.
Associativity and commutativity hold by construction, bit for bit, at the cost of carrying the
leaves in a side file (about 3 kB per step and dimension and dataset).
"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from foundry_core.data.statistics.dataset import DatasetStatistics
from foundry_core.data.statistics.leaf import Leaf, canonical
from foundry_core.errors import FoundryError

T = TypeVar("T")


def merge_statistics(
    parts: Sequence[DatasetStatistics] | Mapping[str, DatasetStatistics],
    weights: Sequence[float] | Mapping[str, float] | None = None,
) -> DatasetStatistics:
    """Statistics of all parts together, field by field.

    Without weights every observation counts once. With weights, part i gets the share
    weights[i] / sum(weights) of the windows, as a training mix would draw them; weight 0 leaves
    a part out entirely, extremes included. Labels of two mappings must agree.
    """
    named = _labelled(parts)
    if not named:
        raise FoundryError("nothing to merge: no statistics were given")
    for label, part in named.items():
        if not part.leaves:
            raise FoundryError(
                f"statistics {label!r} have no leaves (stats.leaves.npz is missing beside "
                "their stats.json) and cannot be merged",
                "recompute them with `foundry data stats`",
            )
    if weights is None:
        return DatasetStatistics.of_leaves([leaf for p in named.values() for leaf in p.leaves])
    shares = _shares(sorted(named), _labelled(weights))
    windows = sum(named[label].windows for label in shares)
    return DatasetStatistics.of_leaves(
        [
            leaf
            for label, share in shares.items()
            for leaf in _weighted(named[label].leaves, share * windows)
        ]
    )


def merge_files(
    paths: Mapping[str, str | os.PathLike[str]], weights: Mapping[str, float] | None = None
) -> tuple[DatasetStatistics, dict[str, Any]]:
    """Of folders, stats.json files or files of digests, by label."""
    parts = {label: DatasetStatistics.load(path) for label, path in paths.items()}
    merged = merge_statistics(parts, weights)
    return merged, merge_report(parts, merged.weighting)


def merge_report(parts: Mapping[str, DatasetStatistics], weighting: str) -> dict[str, Any]:
    """What did not line up: fields in some parts only, and fields with different horizons.

    parts: {label: {"windows", "fields"}}; partial_fields: {field: {"in", "missing"}} by labels;
    horizons: {field: {label: [past, future]}} where they differ; weighting: "count" or "mix".
    """
    names = sorted({name for part in parts.values() for name in part.fields})
    partial: dict[str, dict[str, list[str]]] = {}
    horizons: dict[str, dict[str, list[int]]] = {}
    for name in names:
        having = sorted(label for label, part in parts.items() if name in part.fields)
        if len(having) < len(parts):
            partial[name] = {"in": having, "missing": sorted(set(parts) - set(having))}
        spans = {
            label: [field.past, field.steps - field.past - 1]
            for label in having
            for field in [parts[label].fields[name]]
        }
        if len({tuple(span) for span in spans.values()}) > 1:
            horizons[name] = spans
    return {
        "weighting": weighting,
        "parts": {
            label: {"windows": part.windows, "fields": len(part.fields)}
            for label, part in sorted(parts.items())
        },
        "partial_fields": partial,
        "horizons": horizons,
    }


def _labelled(values: Sequence[T] | Mapping[str, T]) -> Mapping[str, T]:
    """What has no labels is numbered."""
    if isinstance(values, Mapping):
        return values
    return {str(number): value for number, value in enumerate(values)}


def _shares(labels: list[str], weights: Mapping[str, float]) -> dict[str, float]:
    """Those that are not 0."""
    if set(weights) != set(labels):
        raise FoundryError(
            f"weights name {sorted(weights)}, the datasets are {labels}",
            "give one weight per dataset label",
        )
    values = {label: float(weights[label]) for label in labels}
    total = math.fsum(values.values())
    if any(not math.isfinite(v) or v < 0 for v in values.values()) or total <= 0:
        raise FoundryError(f"mix weights {values} must be finite, not negative, and not all 0")
    return {label: value / total for label, value in values.items() if value}


def _weighted(leaves: Sequence[Leaf], mass: float) -> list[Leaf]:
    """Leaves scaled so that their windows weigh `mass` together."""
    now = math.fsum(leaf.scale * leaf.windows for leaf in canonical(leaves))
    return [replace(leaf, scale=leaf.scale * mass / now) for leaf in leaves]
