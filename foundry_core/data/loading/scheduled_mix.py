"""A mix whose shares are functions of the step, still a pure function of the position.

After every step s each dataset has been drawn floor or ceil of its cumulated share times: unit jobs
(dataset i's j-th draw is due between the steps at which its cumulated share passes j and j+1), B of
them a step, earliest deadline first, which meets all deadlines because the shares themselves are a
fractional schedule that does. Within a step its draws are spread as `Mix` spreads a period's.
"""

from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from foundry_core.data.loading.mix import Mix, occurrences, spread
from foundry_core.data.loading.schedule import Weight, WeightSchedule, last_change, weight_at
from foundry_core.errors import FoundryError

_UNIT = 1 << 20
"""Shares of a step are multiples of one part in so many."""
_MOST = 1 << 22
"""Steps that are tabulated."""


class ScheduledMix:
    """draws, as `Mix`. per_step: draws of a step. Where the last weight has changed, the constant
    mix of the last weights goes on, so that any later position costs what the first one costs.

    After every step counts differ from the cumulated shares by less than 1 while weights change,
    and by less than 2 at any draw of the run.
    """

    def __init__(self, weights: Sequence[Weight], per_step: int) -> None:
        self._per_step, self._changes = per_step, last_change(weights)
        if self._changes > _MOST:
            raise FoundryError(
                f"a weight changes until step {self._changes}, at most {_MOST} steps are tabulated",
                "let its last point be earlier",
            )
        self._tail = Mix([weight_at(weight, self._changes) for weight in weights])
        self.weights = self._tail.weights
        self._counts = _whole(_cumulated(weights, self._changes, per_step), per_step)

    def draws(self, first: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """(stream [count], number of the draw among that stream's draws [count]), int64."""
        positions = np.arange(first, first + count, dtype=np.int64)
        stream, number = np.empty_like(positions), np.empty_like(positions)
        for step in range(first // self._per_step, self._changes):
            here = positions // self._per_step == step
            if not here.any():
                break
            before = self._counts[step]
            table, nth = _step_table(tuple((self._counts[step + 1] - before).tolist()))
            at = positions[here] - step * self._per_step
            stream[here] = table[at]
            number[here] = before[table[at]] + nth[at]
        begin = self._changes * self._per_step
        later = positions >= begin
        if later.any():
            start = int(positions[later][0]) - begin
            stream[later], tail = self._tail.draws(start, int(later.sum()))
            number[later] = self._counts[-1][stream[later]] + tail
        return stream, number


@lru_cache(maxsize=4096)
def _step_table(counts: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Streams of a step's draws, and the number of each among its stream's of the step."""
    table = spread(counts, sum(counts))
    return table, occurrences(table, len(counts))


def _cumulated(weights: Sequence[Weight], steps: int, per_step: int) -> np.ndarray:
    """int64 [steps+1, k]: draws of each stream before each step, in parts of _UNIT. In whole
    numbers, so that no machine rounds otherwise than another; a positive weight has a share."""
    at = np.arange(steps, dtype=np.float64)
    held = np.stack([_values(weight, at) for weight in weights], axis=1)
    shares = held / held.sum(axis=1, keepdims=True)
    parts = np.floor(shares * _UNIT).astype(np.int64)
    parts = np.maximum(parts, held > 0)
    largest = shares.argmax(axis=1)
    parts[np.arange(steps), largest] += _UNIT - parts.sum(axis=1)
    whole = np.zeros((steps + 1, len(weights)), dtype=np.int64)
    np.cumsum(parts * per_step, axis=0, out=whole[1:])
    return whole


def _values(weight: Weight, at: np.ndarray) -> np.ndarray:
    """Of the steps, as `WeightSchedule.at` has it."""
    if not isinstance(weight, WeightSchedule):
        return np.full_like(at, weight)
    steps = np.array(weight.steps, dtype=np.float64)
    values = np.array([value for _, value in weight.points])
    before = np.clip(np.searchsorted(steps, at, side="right") - 1, 0, None)
    after = np.minimum(before + 1, len(steps) - 1)
    if weight.between == "hold":
        return values[before]
    span = np.maximum(steps[after] - steps[before], 1)
    along = np.clip((at - steps[before]) / span, 0, 1)
    return values[before] + (values[after] - values[before]) * along


def _whole(cumulated: np.ndarray, per_step: int) -> np.ndarray:
    """int64 [steps+1, k]: whole draws of each stream before each step. In Python's own numbers: of
    a few streams, an array costs more to touch than to count."""
    floors = (cumulated // _UNIT).T.tolist()
    rests = (cumulated % _UNIT).T.tolist()
    held = [0] * len(floors)
    rows = [held]
    for step in range(1, len(cumulated)):
        floor = [column[step] for column in floors]
        ahead = {i for i, count in enumerate(floor) if held[i] > count}
        spare = step * per_step - sum(floor) - len(ahead)
        if spare:
            free = [i for i, rest in enumerate(rests) if rest[step] and i not in ahead]
            # Due first: the earliest step by which one more must be there; beyond the table, alike.
            due = {i: bisect_left(floors[i], floor[i] + 1, step) for i in free}
            ahead.update(sorted(free, key=lambda i: (due[i], -rests[i][step], i))[:spare])
        held = [count + (i in ahead) for i, count in enumerate(floor)]
        rows.append(held)
    return np.array(rows, dtype=np.int64)
