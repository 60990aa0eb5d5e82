"""Training and validation: one rule and one place for text, captions and robots.

The two are folders, each a whole dataset, and not a column that says which sample is which: what
reads a folder of shards, ours or anybody's, cannot train on what was set aside, statistics are of
the training side alone without further care, and packed rows of text belong to one side whole.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from foundry_core.data.config import SplitConfig
from foundry_core.data.shards.read import ShardSet
from foundry_core.errors import FoundryError
from foundry_core.files import hash64

VALIDATION = "validation"
T = TypeVar("T")


def is_validation(of: str | bytes, split: SplitConfig | None) -> bool:
    """Whether an id (of text: the content of a document) is set aside. FoundryError for one that
    `group` does not find itself in: it would fall on a side by chance."""
    if split is None:
        return False
    if split.group is not None and isinstance(of, str):
        found = re.search(split.group, of)
        if found is None:
            raise FoundryError(
                f"split.group {split.group!r} finds nothing in the id {of!r}",
                "every id belongs to a group: widen the expression, or leave it out",
            )
        of = "\0".join(part or "" for part in found.groups()) or found.group()
    data = of.encode() if isinstance(of, str) else of
    return hash64(split.salt.encode() + b"\0" + data) < split.fraction * 2**64


def sides(named: Sequence[tuple[str, T]], split: SplitConfig | None) -> dict[str, list[T]]:
    """{folder below the dataset: what goes there}; "" is training. FoundryError where a side would
    be empty."""
    if split is None:
        return {"": [one for _, one in named]}
    found: dict[str, list[T]] = {"": [], VALIDATION: []}
    for name, one in named:
        found[VALIDATION if is_validation(name, split) else ""].append(one)
    for folder, held in found.items():
        if named and not held:
            raise empty_side(folder, len(named), split)
    return found


def empty_side(folder: str, items: int, split: SplitConfig) -> FoundryError:
    """For a dataset of which nothing falls on a side."""
    return FoundryError(
        f"of {items} items none falls on the side of {folder or 'training'} "
        f"(split.fraction {split.fraction:g}, salt {split.salt!r}"
        + (f", group {split.group!r})" if split.group else ")"),
        "change fraction or salt, or convert without a split",
    )


def check_apart(out: Path) -> None:
    """FoundryError where a sample is on both sides."""
    both = set(_keys(out)) & set(_keys(out / VALIDATION))
    if both:
        raise FoundryError(
            f"sample {min(both)!r} is in training and in validation",
            "two pieces of the source have one id: rename one",
        )


def _keys(folder: Path) -> list[str]:
    shards = ShardSet(folder)
    return [key for number in range(len(shards.shards)) for key in shards.index(number).keys]
