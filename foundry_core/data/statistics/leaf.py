"""A leaf: what one dataset (one pass over its windows) contributes to any statistics.

Legend: T steps of the window, D dimensions of a field; digest rows are (step, dimension).
Leaves are never altered by merging, only listed; see dataset.py for why.
"""

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from foundry_core.data.npy import write_npz
from foundry_core.data.statistics import digest as digests
from foundry_core.data.statistics.digest import Centroids
from foundry_core.data.statistics.moments import Moments
from foundry_core.errors import FoundryError
from foundry_core.files import json_line, sha256_hex, write_atomic

_MOMENTS = ("mass", "mean", "m2", "low", "high")


@dataclass(frozen=True, kw_only=True)
class FieldLeaf:
    """count: int64 [T] valid observations per step; moments: arrays [T, D]; digest: T·D rows.

    past: index of the anchor step, by which windows of different horizons are aligned.
    """

    past: int
    count: np.ndarray
    moments: Moments
    digest: Centroids

    def scaled(self, factor: float) -> "FieldLeaf":
        """The same observations, each weighing `factor` times as much."""
        if factor == 1.0:
            return self
        return replace(self, moments=self.moments.scaled(factor), digest=self.digest.scaled(factor))

    @property
    def steps(self) -> int:
        return self.moments.mean.shape[0]

    @property
    def dims(self) -> int:
        return self.moments.mean.shape[1]


@dataclass(frozen=True, kw_only=True)
class Leaf:
    """windows: how many windows went in; scale: weight of one of its observations (1 by count)."""

    windows: int
    fields: Mapping[str, FieldLeaf]
    scale: float = 1.0

    @cached_property
    def id(self) -> str:
        """Content digest (without the scale): the canonical order of leaves."""
        header, arrays = _pack(self)
        cells = [np.ascontiguousarray(arrays[name]).tobytes() for name in sorted(arrays)]
        return sha256_hex(json_line(header).encode() + b"".join(cells))


def canonical(leaves: Sequence[Leaf]) -> tuple[Leaf, ...]:
    """The order in which leaves are combined, whatever order they came in."""
    return tuple(sorted(leaves, key=lambda leaf: (leaf.id, leaf.scale)))


def save_leaves(path: Path, leaves: Sequence[Leaf]) -> None:
    """Equal leaves give equal bytes."""
    headers: list[dict[str, Any]] = []
    everything: dict[str, np.ndarray] = {}
    for number, leaf in enumerate(leaves):
        header, arrays = _pack(leaf)
        headers.append(header | {"scale": leaf.scale})
        everything |= {f"{number}.{name}": array for name, array in arrays.items()}
    text = json_line({"format": "foundry-statistics-leaves", "version": 1, "leaves": headers})
    everything["header"] = np.frombuffer(text.encode(), dtype=np.uint8)
    write_atomic(path, write_npz(everything))


def load_leaves(path: Path) -> tuple[Leaf, ...]:
    """Of `save_leaves`. FoundryError for a file that is damaged."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            headers = json.loads(stored["header"].tobytes().decode())["leaves"]
            return tuple(
                _unpack(header, {name: stored[f"{number}.{name}"] for name in _ARRAYS})
                for number, header in enumerate(headers)
            )
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise FoundryError(
            f"statistics leaves {str(path)!r} are unreadable: {error!r}",
            "recompute the dataset's statistics (foundry data stats)",
        ) from error


_ARRAYS = ("sizes", "means", "counts", "flat", "observed", *_MOMENTS)


def _pack(leaf: Leaf) -> tuple[dict, dict[str, np.ndarray]]:
    """Fields in name order; digest rows without their padding."""
    names = sorted(leaf.fields)
    fields = [leaf.fields[name] for name in names]
    header = {
        "windows": leaf.windows,
        "fields": [
            [name, field.past, field.steps, field.dims]
            for name, field in zip(names, fields, strict=True)
        ],
    }
    used = [field.digest.counts > 0 for field in fields]

    def gather(cells: list[np.ndarray], dtype: type) -> np.ndarray:
        return np.concatenate([np.zeros(0, dtype), *cells])

    arrays = {
        "sizes": gather([u.sum(axis=1) for u in used], np.int64),
        "observed": gather([field.count for field in fields], np.int64),
    }
    for name, dtype in (("means", np.float64), ("counts", np.float64), ("flat", np.bool_)):
        cells = [vars(f.digest)[name][u] for f, u in zip(fields, used, strict=True)]
        arrays[name] = gather(cells, dtype)
    for name in _MOMENTS:
        arrays[name] = gather([getattr(f.moments, name).ravel() for f in fields], np.float64)
    return header, arrays


def _unpack(header: dict, arrays: Mapping[str, np.ndarray]) -> Leaf:
    fields: dict[str, FieldLeaf] = {}
    row = cell = step = 0
    for name, past, steps, dims in header["fields"]:
        rows = steps * dims
        sizes = arrays["sizes"][row : row + rows]
        cells = slice(cell, cell + int(sizes.sum()))
        digest = digests.empty(rows, int(sizes.max(initial=0)))
        mask = np.arange(digest.width) < sizes[:, None]
        digests.put(digest, mask, *(arrays[name][cells] for name in ("means", "counts", "flat")))
        fields[name] = FieldLeaf(
            past=past,
            count=arrays["observed"][step : step + steps],
            moments=Moments(
                **{k: arrays[k][row : row + rows].reshape(steps, dims) for k in _MOMENTS}
            ),
            digest=digest,
        )
        row, cell, step = row + rows, cells.stop, step + steps
    return Leaf(windows=header["windows"], fields=fields, scale=header["scale"])
