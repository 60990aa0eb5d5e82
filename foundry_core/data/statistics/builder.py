"""One pass over a dataset's windows → its statistics.

Legend: N windows, T steps, D dimensions of a field, C dimensions of all fields together.
"""

from collections.abc import Iterable, Mapping
from operator import itemgetter

import numpy as np

from foundry_core.data.statistics import digest as digests
from foundry_core.data.statistics import moments as moment_ops
from foundry_core.data.statistics.dataset import DatasetStatistics
from foundry_core.data.statistics.digest import Centroids
from foundry_core.data.statistics.leaf import FieldLeaf, Leaf
from foundry_core.data.statistics.moments import Moments
from foundry_core.errors import FoundryError

CENTROIDS = 200
_BUFFERED_VALUES = 6_000_000
_FANOUT = 8

# (episode id, {field: [N, T, D]}, valid [N, T])
EpisodeWindows = tuple[str, Mapping[str, np.ndarray], np.ndarray]


def compute_statistics(windows: Iterable[EpisodeWindows], *, past: int = 0) -> DatasetStatistics:
    """Statistics of (episode id, {field: float64 [N, T, D]}, valid: bool [N, T]) items.

    past: index of the anchor step in the windows. The result depends on the sequence of values
    only, not on how episodes were grouped into items. Raises FoundryError for NaN or infinity in
    a valid step (naming episode, field, step), for fields that come and go, and for no windows.
    """
    builder = StatisticsBuilder(past=past)
    for episode, fields, valid in windows:
        builder.add(episode, fields, valid)
    return builder.finish()


class StatisticsBuilder:
    """Takes windows episode by episode; memory stays bounded (about 50 MB of values).

    Values are digested in blocks (sorting long columns is what makes this fast), whose length
    depends on shapes alone, so that the result stays a function of the sequence.
    """

    def __init__(self, *, past: int = 0) -> None:
        self._past = past
        self._names: list[str] = []
        self._dims: list[int] = []
        self._steps = 0
        self._windows = 0
        self._block = 0
        self._values: list[np.ndarray] = []
        self._valid: list[np.ndarray] = []
        self._buffered = 0
        self._moments: list[Moments] = []
        self._digests: list[list[Centroids]] = []

    def add(self, episode: str, fields: Mapping[str, np.ndarray], valid: np.ndarray) -> None:
        """Windows of one episode: {field: [N, T, D]}, valid: bool [N, T]."""
        valid = np.asarray(valid, dtype=bool)
        self._check(episode, fields, valid)
        if not len(valid):
            return
        joined = np.concatenate([fields[name] for name in self._names], axis=2, dtype=np.float64)
        if not np.isfinite(joined).all():
            self._refuse_non_finite(episode, fields, valid)
        while len(joined):
            free = self._block - self._buffered
            self._values.append(joined[:free])
            self._valid.append(valid[:free])
            self._buffered += len(joined[:free])
            joined, valid = joined[free:], valid[free:]
            if self._buffered == self._block:
                self._flush()

    def finish(self) -> DatasetStatistics:
        """Statistics of all that was added. FoundryError for no windows."""
        if self._buffered:
            self._flush()
        if not self._windows:
            raise FoundryError(
                "no windows to compute statistics over",
                "the dataset has no episodes, or padding limits drop every anchor",
            )
        steps = [digests.compress(_join(parts), CENTROIDS) for parts in self._digests]
        fields, at = {}, 0
        moments = moment_ops.stack(self._moments)
        counts = moments.mass[:, 0].astype(np.int64)
        for name, dims in zip(self._names, self._dims, strict=True):
            columns = slice(at, at + dims)
            fields[name] = FieldLeaf(
                past=self._past,
                count=counts,
                moments=moments.each(itemgetter((slice(None), columns))),
                digest=_stack_rows(steps, columns),
            )
            at += dims
        return DatasetStatistics.of_leaves([Leaf(windows=self._windows, fields=fields)])

    def _check(self, episode: str, fields: Mapping[str, np.ndarray], valid: np.ndarray) -> None:
        for name, array in fields.items():
            if np.ndim(array) != 3 or np.shape(array)[:2] != valid.shape:
                raise FoundryError(
                    f"episode {episode!r}, field {name!r} has shape {np.shape(array)}, its mask "
                    f"{valid.shape}",
                    "windows are [N, T, D] and the mask is [N, T]",
                )
        shapes = {name: int(np.shape(fields[name])[2]) for name in sorted(fields)}
        if not self._names:
            if not shapes:
                raise FoundryError(f"episode {episode!r} has no fields")
            self._names, self._dims = list(shapes), list(shapes.values())
            self._steps = valid.shape[1]
            width = self._steps * sum(self._dims)
            self._block = max(256, _BUFFERED_VALUES // max(width, 1))
            self._moments = [moment_ops.empty((sum(self._dims),)) for _ in range(self._steps)]
            self._digests = [[] for _ in range(self._steps)]
        expected = dict(zip(self._names, self._dims, strict=True))
        if shapes != expected or valid.shape[1] != self._steps:
            odd = sorted(set(shapes.items()) ^ set(expected.items()))
            raise FoundryError(
                f"episode {episode!r} has other fields or steps than the episodes before it: "
                f"{odd or f'{valid.shape[1]} steps against {self._steps}'}",
                "all episodes of one dataset share fields and window; convert others apart",
            )

    def _refuse_non_finite(
        self, episode: str, fields: Mapping[str, np.ndarray], valid: np.ndarray
    ) -> None:
        for name in self._names:
            bad = ~np.isfinite(fields[name]) & valid[:, :, None]
            if bad.any():
                window, step, dim = (int(i[0]) for i in np.nonzero(bad))
                raise FoundryError(
                    f"episode {episode!r}, field {name!r}, step {step} of window {window}, "
                    f"dimension {dim}: {float(fields[name][window, step, dim])}",
                    "statistics refuse NaN and infinity: mend or skip the episode",
                )

    def _flush(self) -> None:
        values, valid = np.concatenate(self._values), np.concatenate(self._valid)
        for step in range(self._steps):
            mask = valid[:, step]
            column = values[:, step] if mask.all() else values[mask, step]
            of_block = moment_ops.of_values(np.ascontiguousarray(column))
            self._moments[step] = moment_ops.combine(self._moments[step], of_block)
            parts = self._digests[step]
            parts.append(digests.from_values(column, 2 * CENTROIDS))
            if len(parts) == _FANOUT:
                parts[:] = [digests.compress(_join(parts), 2 * CENTROIDS)]
        self._windows += len(values)
        self._values, self._valid, self._buffered = [], [], 0


def _join(parts: list[Centroids]) -> Centroids:
    return parts[0] if len(parts) == 1 else digests.union(parts)


def _stack_rows(steps: list[Centroids], columns: slice) -> Centroids:
    parts = [step.each(itemgetter(columns)) for step in steps]
    out, at = digests.empty(sum(p.rows for p in parts), max(p.width for p in parts)), 0
    for part in parts:
        cells = (slice(at, at + part.rows), slice(part.width))
        digests.put(out, cells, part.means, part.counts, part.flat)
        at += part.rows
    return out
