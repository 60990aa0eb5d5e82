"""Statistics of a dataset, or of a merge of datasets, and their files.

`stats.json` holds what people and other programs read: one entry per field with the published
keys. `stats.leaves.npz` beside it holds the leaves, which only merging needs.

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
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from foundry_core.data.statistics import digest as digests
from foundry_core.data.statistics import tdigests
from foundry_core.data.statistics.leaf import Leaf, canonical, load_leaves, save_leaves
from foundry_core.data.statistics.published import leaf_of_summary, stated_past
from foundry_core.data.statistics.summary import (
    ID_DIGITS,
    FieldStatistics,
    combine_field,
    summarise,
)
from foundry_core.errors import FoundryError
from foundry_core.files import json_line, read_json, write_atomic

LEAVES_SUFFIX = ".leaves.npz"
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class DatasetStatistics:
    """fields: per-field numbers. leaves: their sources in canonical order; empty where only a
    stats.json was found, which is enough to normalise; for a merge one is made of its numbers."""

    fields: Mapping[str, FieldStatistics]
    leaves: tuple[Leaf, ...] = ()

    @classmethod
    def of_leaves(cls, leaves: Sequence[Leaf]) -> "DatasetStatistics":
        """Computes every number from the leaves, in their canonical order."""
        ordered = canonical(leaves)
        return cls(fields=summarise(ordered), leaves=ordered)

    @property
    def weighting(self) -> str:
        """ "count", or "mix" where a merge weighted its parts."""
        return "count" if all(leaf.scale == 1.0 for leaf in self.leaves) else "mix"

    @cached_property
    def windows(self) -> int:
        return sum(leaf.windows for leaf in self.parts)

    @cached_property
    def parts(self) -> tuple[Leaf, ...]:
        """The leaves, or the one that a stats.json alone makes."""
        return self.leaves or (leaf_of_summary(self.fields),)

    @cached_property
    def datasets(self) -> tuple[str, ...]:
        """Ids of the datasets that these statistics are of: those of their leaves."""
        stated = {name for field in self.fields.values() for name in field.datasets}
        return tuple(sorted(stated or {leaf.id[:ID_DIGITS] for leaf in self.parts}))

    def __getitem__(self, field: str) -> FieldStatistics:
        if field not in self.fields:
            raise FoundryError(
                f"no statistics for field {field!r}; there are {', '.join(sorted(self.fields))}",
                "name a field of the converted dataset, or convert it with this field",
            )
        return self.fields[field]

    def collapse(self, centroids: int = 200) -> "DatasetStatistics":
        """One leaf in place of many, for the parts of ONE dataset (its shards, its workers).

        Merging keeps every leaf, so without this a dataset of 1000 shards would carry 1000.
        """
        if self.weighting != "count":
            raise FoundryError("only count-weighted statistics can be collapsed into one leaf")
        fields = {}
        for name in self.fields:
            field = combine_field(self.leaves, name)
            fields[name] = replace(field, digest=digests.compress(field.digest, centroids))
        return DatasetStatistics.of_leaves([Leaf(windows=self.windows, fields=fields)])

    def to_json(self) -> str:
        """The text of stats.json."""
        entries = {
            name: field.to_dict() | {"weighting": self.weighting}
            for name, field in self.fields.items()
        }
        return json_line(entries)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes `<path>` (stats.json) and `<stem>.leaves.npz` beside it, both deterministic. A
        path that ends in .tdigest.json gets the digests alone, for the package `tdigest`."""
        path = Path(path)
        if path.name.endswith(tdigests.SUFFIX):
            write_atomic(path, json_line({n: field.tdigest for n, field in self.fields.items()}))
            return
        write_atomic(path, self.to_json())
        if self.leaves:
            save_leaves(_leaves_path(path), self.leaves)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "DatasetStatistics":
        """Of our own files, of a published stats.json (its folder may be given instead), or of a
        file of digests (.tdigest.json), see `tdigests.leaf_of`."""
        path = Path(path)
        if path.name.endswith(tdigests.SUFFIX):
            return cls.of_leaves([tdigests.leaf_of(tdigests.load_tdigests(path))])
        if path.is_dir():
            path = path / "stats.json"
        try:
            past = stated_past(path.parent)
            entries = read_json(path)
            fields = {
                name: FieldStatistics.from_dict(entry, past)
                for name, entry in entries.items()
                if isinstance(entry, dict) and "mean_per_timestep" in entry
            }
        except FileNotFoundError:
            raise FoundryError(
                f"no statistics at {str(path)!r}", "run `foundry data stats` on the dataset"
            ) from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise FoundryError(
                f"statistics {str(path)!r} are unreadable: {error!r}", "compute them again"
            ) from error
        if not fields:
            raise FoundryError(f"{str(path)!r} holds no field with statistics per timestep")
        beside = _leaves_path(path)
        return cls(fields=fields, leaves=load_leaves(beside) if beside.exists() else ())


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
    if weights is None:
        return DatasetStatistics.of_leaves([leaf for p in named.values() for leaf in p.parts])
    shares = _shares(sorted(named), _labelled(weights))
    windows = sum(named[label].windows for label in shares)
    return DatasetStatistics.of_leaves(
        [
            leaf
            for label, share in shares.items()
            for leaf in _weighted(named[label].parts, share * windows)
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

    parts: {label: {"windows", "fields", "datasets": ids}}; partial_fields: {field: {"in",
    "missing"}} by labels; horizons: {field: {label: [past, future]}} where they differ;
    weighting: "count" or "mix".
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
            label: {
                "windows": part.windows,
                "fields": len(part.fields),
                "datasets": list(part.datasets),
            }
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


def _leaves_path(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(".json") + LEAVES_SUFFIX)
