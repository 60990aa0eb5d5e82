"""Weights that change over training. No NumPy: recipes hold them and planning imports this."""

import itertools
from bisect import bisect_right
from collections.abc import Iterable
from typing import Literal, Self

from pydantic import Field, model_validator

from foundry_core.pipeline.stage import Config


class WeightSchedule(Config):
    """A weight as a function of the optimizer step, whatever the budget. Before its first point and
    after its last one it stays."""

    points: tuple[tuple[int, float], ...] = Field(
        min_length=1, description="(step, weight), by increasing steps; weights are not negative"
    )
    between: Literal["linear", "hold"] = Field(
        "linear", description="two points: a line, or the earlier one's weight"
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        steps = self.steps
        if steps[0] < 0 or any(a >= b for a, b in itertools.pairwise(steps)):
            raise ValueError(
                f"points at steps {list(steps)}: they must increase, from 0 or later on"
            )
        bad = [weight for _, weight in self.points if not 0 <= weight < float("inf")]
        if bad:
            raise ValueError(f"weight {bad[0]:g} of a point: it is finite and not negative")
        return self

    @property
    def steps(self) -> tuple[int, ...]:
        """Of the points."""
        return tuple(step for step, _ in self.points)

    def at(self, step: int) -> float:
        """The weight of a 0-based step."""
        after = bisect_right(self.steps, step)
        if after == 0 or after == len(self.points) or self.between == "hold":
            return self.points[max(0, after - 1)][1]
        (begin, low), (end, high) = self.points[after - 1 : after + 1]
        return low + (high - low) * (step - begin) / (end - begin)


Weight = float | WeightSchedule


def weight_at(weight: Weight, step: int) -> float:
    """Of a 0-based step."""
    return weight.at(step) if isinstance(weight, WeightSchedule) else weight


def last_change(weights: Iterable[Weight]) -> int:
    """The step from which on none of them changes."""
    return max((w.steps[-1] for w in weights if isinstance(w, WeightSchedule)), default=0)


def all_zero_at(weights: Iterable[Weight]) -> int | None:
    """A step at which all are 0, if there is one: where a sum of lines is lowest."""
    held = list(weights)
    steps = {0, *(step for w in held if isinstance(w, WeightSchedule) for step in w.steps)}
    empty = (step for step in sorted(steps) if not any(weight_at(w, step) for w in held))
    return next(empty, None)


def scheduled(weights: Iterable[Weight]) -> bool:
    """Whether any of them changes over training."""
    return any(isinstance(weight, WeightSchedule) for weight in weights)


def ever(weight: Weight) -> bool:
    """Whether it is above 0 at any step."""
    if isinstance(weight, WeightSchedule):
        return any(value > 0 for _, value in weight.points)
    return weight > 0
