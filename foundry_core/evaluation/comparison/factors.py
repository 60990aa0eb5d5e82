"""What an ablation's variants vary, seen as factors: a grid of settings, or values in an order.

From the settings alone: nothing here looks at an outcome, so what will be tested is fixed before
anything is played.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from foundry_core.evaluation.statistics.trend import rise_weights

# variant → path → value. The base has all paths that any variant changes.
Settings = Mapping[str, Mapping[str, Any]]
Point = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Component:
    """One question about a factor: the weight of each of its levels, which sum to 0, the reference
    or the lowest first. trend: along all levels in their order. text: '8 → 32', '8, 32, 128'."""

    text: str
    weights: Mapping[str, float]
    trend: bool


@dataclass(frozen=True, kw_only=True)
class Factor:
    """levels: spelled values in rising order. reference: the one that others are held against, the
    base's if it is among them. values: level → the value."""

    path: str
    levels: tuple[str, ...]
    values: Mapping[str, Any]
    reference: str

    @property
    def ordered(self) -> bool:
        return len(self.levels) > 2 and all(map(is_number, self.values.values()))

    @property
    def components(self) -> list[Component]:
        """Of three or more numbers the trend; else every level against the reference."""
        if self.ordered:
            weights = dict(zip(self.levels, rise_weights(len(self.levels)), strict=True))
            return [Component(text=", ".join(self.levels), weights=weights, trend=True)]
        return [
            Component(
                text=f"{self.reference} → {level}",
                weights={self.reference: -1.0, level: 1.0},
                trend=False,
            )
            for level in self.levels
            if level != self.reference
        ]


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Every combination of the factors' levels is a variant. cells: levels → variant."""

    factors: tuple[Factor, ...]
    cells: Mapping[Point, str]


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def spelled(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, sort_keys=True, default=str, ensure_ascii=False)


def grids(settings: Settings, base: str) -> list[Grid]:
    """The grid over all factors if the variants are one, whether the base is in it or not; else a
    grid of one factor for every path with three numeric values or more, of the variants that change
    nothing else."""
    for names in _candidates(settings, base):
        found = _full(settings, base, names)
        if found is not None and len(found.factors) > 1:
            return [found]
    single = []
    for path in sorted(settings[base]):
        names = [base, *(n for n in sorted(settings) if n != base and set(settings[n]) == {path})]
        found = _full(settings, base, names)
        if found is not None and any(factor.ordered for factor in found.factors):
            single.append(found)
    return single


def _candidates(settings: Settings, base: str) -> list[list[str]]:
    """Sets of variants that may be a grid: those that change no other paths than one of them does,
    the largest set first, with the base and without it."""
    others = [name for name in sorted(settings) if name != base]
    changed = {name: frozenset(settings[name]) for name in others}
    groups = [
        [n for n in others if changed[n] <= paths] for paths in dict.fromkeys(changed.values())
    ]
    groups.sort(key=len, reverse=True)
    return [names for group in groups for names in ([base, *group], group)]


def _full(settings: Settings, base: str, names: Sequence[str]) -> Grid | None:
    """The grid that these variants are; None where a combination is missing or there twice."""
    whole = {name: {**settings[base], **settings[name]} for name in names}
    factors = [
        factor
        for path in sorted(settings[base])
        if (factor := _factor(path, whole, settings[base][path]))
    ]
    if not factors:
        return None
    cells = {tuple(spelled(v[f.path]) for f in factors): name for name, v in whole.items()}
    asked = set(product(*(factor.levels for factor in factors)))
    if len(cells) != len(names) or set(cells) != asked:
        return None
    return Grid(factors=tuple(factors), cells=cells)


def _factor(path: str, whole: Settings, before: Any) -> Factor | None:
    values = {spelled(of[path]): of[path] for of in whole.values()}
    if len(values) < 2:
        return None
    numbers = all(map(is_number, values.values()))
    levels = sorted(values, key=(lambda level: float(values[level])) if numbers else None)
    reference = spelled(before) if spelled(before) in values else levels[0]
    return Factor(path=path, levels=tuple(levels), values=values, reference=reference)
