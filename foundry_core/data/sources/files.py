"""Splitting files into pieces of work whose borders depend on the content alone."""

from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from foundry_core.errors import FoundryError
from foundry_core.identity.sources import source_files

T = TypeVar("T")


def find_files(path: str, endings: tuple[str, ...]) -> list[Path]:
    """`path` itself, or the files below it with one of the endings, by relative name."""
    root = Path(path).expanduser()
    if root.is_file():
        return [root]
    if not root.is_dir():
        raise FoundryError(f"source {str(root)!r} does not exist", "check the path in the recipe")
    names = source_files(root)
    found = [root / name for name in sorted(names) if name.endswith(endings)]
    if not found:
        others = sorted({Path(name).suffix for name in names})
        raise FoundryError(
            f"source {str(root)!r} holds no file that ends in {' or '.join(endings)}",
            f"it holds files ending in: {', '.join(others) or 'nothing'}",
        )
    return found


def groups_by_size(items: Iterable[tuple[T, int]], limit: int) -> list[tuple[T, ...]]:
    """Consecutive (item, size) pairs as groups of about `limit`; at least one item each."""
    groups: list[tuple[T, ...]] = []
    group: list[T] = []
    total = 0
    for item, size in items:
        if group and total + size > limit:
            groups.append(tuple(group))
            group, total = [], 0
        group.append(item)
        total += size
    return [*groups, tuple(group)] if group else groups


def line_ranges(path: Path, limit: int) -> list[tuple[int, int]]:
    """Byte ranges of about `limit` that begin and end at line breaks, covering the file."""
    size = path.stat().st_size
    ranges: list[tuple[int, int]] = []
    start = 0
    with path.open("rb") as stream:
        while start < size:
            stream.seek(min(start + limit, size) - 1)
            stream.readline()
            stop = stream.tell()
            ranges.append((start, stop))
            start = stop
    return ranges
