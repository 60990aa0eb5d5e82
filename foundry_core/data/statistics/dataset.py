"""Statistics of a dataset, or of a merge of datasets, and their files.

`stats.json` holds what people and other programs read: one entry per field with the published
keys. `stats.leaves.npz` beside it holds the leaves, which only merging needs.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from foundry_core.data.statistics import digest as digests
from foundry_core.data.statistics import tdigests
from foundry_core.data.statistics.leaf import Leaf, canonical, load_leaves, save_leaves
from foundry_core.data.statistics.summary import FieldStatistics, combine_field, summarise
from foundry_core.errors import FoundryError
from foundry_core.files import json_line, read_json, write_atomic

LEAVES_SUFFIX = ".leaves.npz"


@dataclass(frozen=True, kw_only=True)
class DatasetStatistics:
    """fields: per-field numbers. leaves: their sources in canonical order; empty where only a
    stats.json was found, which is enough to normalise but not to merge."""

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
        return sum(leaf.windows for leaf in self.leaves)

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
            entries = read_json(path)
            fields = {
                name: FieldStatistics.from_dict(entry)
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


def _leaves_path(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(".json") + LEAVES_SUFFIX)
