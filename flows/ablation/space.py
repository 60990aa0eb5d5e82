"""Spaces of settings, and what is drawn from them at random.

The i-th variant that is drawn depends on the seed, the paths and i alone: more variants of the same
seed begin with the same ones, and another setting changes none of the others' values.
"""

import json
import math
import random
from collections.abc import Iterable, Mapping
from typing import Any, Self

from pydantic import Field, model_validator

from foundry_core.config.overrides import parse_override
from foundry_core.config.validation import validate
from foundry_core.errors import FoundryError
from foundry_core.pipeline.stage import Config

# A path and the value it gets.
Change = tuple[str, Any]
_DIGITS = 3
_TRIES = 200


class Range(Config):
    """Numbers from low to high, both included: whole ones where both are whole, else with three
    digits, so that a value can be read, named and asked for again."""

    low: int | float = Field(description="the smallest value")
    high: int | float = Field(description="the largest value")
    log: bool = Field(False, description="every factor is as likely as every other")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low < self.high < math.inf:
            raise ValueError(f"low {self.low} is not below high {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"log needs low > 0, not {self.low}")
        return self

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def size(self) -> float:
        """How many values there are."""
        return self.high - self.low + 1 if self.whole else math.inf

    def at(self, share: float) -> int | float:
        """The value below which this share of the range lies, 0 ≤ share < 1."""
        top = self.high + 1 if self.whole else self.high
        if self.log:
            value = self.low * (top / self.low) ** share
        else:
            value = self.low + (top - self.low) * share
        return self.readable(math.floor(value) if self.whole else value)

    def readable(self, value: float) -> int | float:
        """The value that stands for it."""
        value = int(value) if self.whole else float(f"{value:.{_DIGITS}g}")
        return min(max(value, self.low), self.high)


class Choices(Config):
    """One of several values, each as likely."""

    values: tuple[Any, ...] = Field(min_length=1, description="what is chosen from")

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        spelled = [_spelled(value) for value in self.values]
        twice = next((text for text in spelled if spelled.count(text) > 1), None)
        if twice is not None:
            raise ValueError(f"{twice} is named twice")
        return self

    @property
    def size(self) -> float:
        return len(self.values)

    def at(self, share: float) -> Any:
        return self.values[int(share * len(self.values))]


Dimension = Range | Choices
# path → its values
Space = Mapping[str, Dimension]


def dimension(path: str, stated: Any) -> Dimension:
    """A list is choices, a mapping a range. FoundryError for anything else."""
    if isinstance(stated, list | tuple):
        return validate(Choices, {"values": tuple(stated)}, f"space {path!r}")
    if isinstance(stated, Mapping):
        return validate(Range, dict(stated), f"space {path!r}")
    raise FoundryError(
        f"space {path!r}: {stated!r} is neither a list of values nor a range",
        "[a, b] or {low: 1e-4, high: 1e-2, log: true}",
    )


def parse_dimension(text: str) -> tuple[str, Dimension]:
    """'vla.training.lr={low: 1e-4, high: 1e-2, log: true}' → the path and what it may be."""
    path, stated = parse_override(text)
    return path, dimension(path, stated)


def space_of(dimensions: Iterable[tuple[str, Dimension]]) -> Space:
    """FoundryError for a path that is there twice."""
    space: dict[str, Dimension] = {}
    for path, one in dimensions:
        if path in space:
            raise FoundryError(f"space {path!r} is given twice", "give all its values at once")
        space[path] = one
    return space


def size(space: Space) -> float:
    """How many different variants there are."""
    return math.prod(one.size for one in space.values())


def draw(space: Space, number: int, seed: int = 0) -> list[tuple[Change, ...]]:
    """So many different variants, in their order. FoundryError where there are not as many."""
    check(space, number)
    found: dict[str, tuple[Change, ...]] = {}
    tries = 0
    while len(found) < number:
        changes = tuple((path, one.at(_share(seed, path, tries))) for path, one in space.items())
        found.setdefault(_spelled(changes), changes)
        tries += 1
        if tries > _TRIES * (number + 10):
            raise FoundryError(
                f"only {len(found)} of {number} variants were found in {tries} tries",
                "ask for fewer, or widen the space: ranges have values of three digits",
            )
    return list(found.values())


def check(space: Space, number: int) -> None:
    """FoundryError for an empty space, and for more variants than it has."""
    if not space:
        raise FoundryError("nothing to draw from", "give --space PATH=[A, B] or a range")
    if number < 1:
        raise FoundryError(f"{number} variants: at least one", "e.g. 8")
    if number > size(space):
        raise FoundryError(
            f"{number} variants of a space that has {size(space):g}",
            f"ask for {size(space):g}, or give all of them with --vary",
        )


def _share(seed: int, path: str, number: int) -> float:
    return random.Random(f"{seed}/{path}/{number}").random()


def _spelled(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)
