"""Statistics of any number of parts of one dataset, in bounded memory.

Parts come in their order and are merged in groups of FANOUT, groups of groups, and so on: a tree
whose form depends on the number of parts alone. So equal parts give equal bytes, whoever made them
and when. No more than a group is in memory; what waits lies in files.
"""

from dataclasses import replace
from pathlib import Path

from foundry_core.data.statistics import digest as digests
from foundry_core.data.statistics.builder import CENTROIDS
from foundry_core.data.statistics.dataset import DatasetStatistics
from foundry_core.data.statistics.leaf import Leaf, load_leaves, save_leaves
from foundry_core.data.statistics.summary import combine_field

FANOUT = 8


class RunningStatistics:
    """Takes files of leaves (`save_leaves`, one leaf each). folder: for what is merged; the files
    that it is given are read later, and left alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._levels: list[list[Path]] = []
        self._written = 0

    def add(self, leaf: Path) -> None:
        """The next part."""
        self._push(leaf, 0)

    def finish(self) -> DatasetStatistics | None:
        """Of all parts as one dataset; None of none."""
        if not self._levels:
            return None
        level = 0
        while level + 1 < len(self._levels):  # rises by what is left of each level
            if self._levels[level]:
                self._push(self._merged(level), level + 1)
            level += 1
        leaves = [leaf for path in self._levels[level] for leaf in load_leaves(path)]
        return DatasetStatistics.of_leaves(leaves).collapse()

    def _push(self, leaf: Path, level: int) -> None:
        """A full level becomes one leaf of the next when one more comes, so that few parts are
        merged at once."""
        if level == len(self._levels):
            self._levels.append([])
        if len(self._levels[level]) == FANOUT:
            merged = self._merged(level)
            self._push(merged, level + 1)
        self._levels[level].append(leaf)

    def _merged(self, level: int) -> Path:
        paths, self._levels[level] = self._levels[level], []
        if len(paths) == 1:
            return paths[0]
        leaves = [leaf for path in paths for leaf in load_leaves(path)]
        self._written += 1
        path = self._folder / f"merged_{self._written:06d}.leaves.npz"
        save_leaves(path, [_joined(leaves)])
        return path


def _joined(leaves: list[Leaf]) -> Leaf:
    """One of many, with twice the centroids that are kept in the end."""
    fields = {}
    for name in sorted({name for leaf in leaves for name in leaf.fields}):
        field = combine_field(leaves, name)
        fields[name] = replace(field, digest=digests.compress(field.digest, 2 * CENTROIDS))
    return Leaf(windows=sum(leaf.windows for leaf in leaves), fields=fields)
