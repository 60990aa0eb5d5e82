"""What a conversion doubts: a gripper's numbers beyond the stroke that its mapping states or
within a small part of it, positions that hardly move or lie too far away for their unit, a rate
that mapping and source state unlike.

None of it need be wrong, so it stops nothing; it is told: in report.json and on the console.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np

from foundry_core.data.contract.fields import UNITS, FieldContract
from foundry_core.data.convert.split import VALIDATION
from foundry_core.data.mapping.apply import numbers
from foundry_core.data.mapping.config import RobotMapping, ValueMapping
from foundry_core.data.robot.episodes import Episode
from foundry_core.errors import printable
from foundry_core.files import read_json

REPORT = "report.json"
_MOST_TOLD = 20
_TOLERATED = 0.02
"""Share of a stroke: a hand that is shut firmly reads a little less than closed."""
_LEAST, _FURTHEST = 0.002, 20.0
"""Metres that a position moves in all, and that it lies away at most."""
_USED = 0.05
"""Least share of its stroke that a gripper uses if it moves: metres under ends in millimetres use a
thousandth, radians under ends in degrees a fiftieth."""


@dataclass(kw_only=True)
class Stroke:
    """Raw numbers of a gripper. values: how many; outside: of them beyond closed and open by more
    than the tolerance; low, high: of all."""

    closed: float
    open: float
    values: int
    outside: int
    low: float
    high: float

    @classmethod
    def of(cls, values: np.ndarray, value: ValueMapping) -> Self:
        """Of a part with two ends, values [L, D]."""
        assert value.closed is not None and value.open is not None
        slack = _TOLERATED * abs(value.open - value.closed)
        least, most = sorted((value.closed, value.open))
        beyond = (values < least - slack) | (values > most + slack)
        return cls(
            closed=value.closed,
            open=value.open,
            values=values.size,
            outside=int(np.count_nonzero(beyond)),
            low=float(values.min()),
            high=float(values.max()),
        )

    def add(self, other: "Stroke") -> None:
        self.values += other.values
        self.outside += other.outside
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)


@dataclass(kw_only=True)
class Reach:
    """A position, in metres: its least and most per dimension."""

    low: list[float]
    high: list[float]

    def add(self, other: "Reach") -> None:
        self.low = list(map(min, self.low, other.low))
        self.high = list(map(max, self.high, other.high))


T = TypeVar("T", Stroke, Reach)


@dataclass(kw_only=True)
class Numbers:
    """What is watched of some episodes. stated: the least and the most rate that their source
    states, where the mapping states `hz` beside it; None: the same, or not both."""

    strokes: dict[str, Stroke] = field(default_factory=dict)
    reaches: dict[str, Reach] = field(default_factory=dict)
    hz: float | None = None
    stated: tuple[float, float] | None = None

    def add(self, other: "Numbers") -> None:
        _merge(self.strokes, other.strokes)
        _merge(self.reaches, other.reaches)
        if other.stated:
            least, most = self.stated or other.stated
            self.stated = min(least, other.stated[0]), max(most, other.stated[1])
            self.hz = other.hz

    def clipped(self) -> dict[str, dict[str, float]]:
        """{field: counts and range} of grippers with numbers outside of their stroke."""
        return {
            name: {"values": one.values, "outside": one.outside, "low": one.low, "high": one.high}
            for name, one in self.strokes.items()
            if one.outside
        }

    def doubts(self) -> list[str]:
        """A sentence each."""
        return [*self._of_strokes(), *self._of_reaches(), *self._of_rate()]

    def _of_strokes(self) -> Iterator[str]:
        for name, one in self.strokes.items():
            if one.outside:
                yield (
                    f"gripper {name}: {_percent(one.outside / one.values)} of the values lie "
                    f"outside closed {one.closed:g} .. open {one.open:g} "
                    f"(found {one.low:.4g} .. {one.high:.4g}) and were clipped: "
                    "check the mapping's closed and open"
                )
            used = (one.high - one.low) / abs(one.open - one.closed)
            if 0 < used < _USED:
                yield (
                    f"gripper {name} moves (from {one.low:.4g} to {one.high:.4g}) over "
                    f"{_percent(used)} of its stroke, closed {one.closed:g} .. open {one.open:g}: "
                    "check the mapping's closed and open, and their unit"
                )

    def _of_reaches(self) -> Iterator[str]:
        for name, one in self.reaches.items():
            moved = float(np.linalg.norm(np.subtract(one.high, one.low)))
            furthest = float(np.abs([one.low, one.high]).max())
            if moved < _LEAST:
                yield (
                    f"position {name} moves by {1000 * moved:.3g} mm in all: it stood still, or "
                    "its unit is wrong (metres that are declared as mm, say)"
                )
            if furthest > _FURTHEST:
                yield (
                    f"position {name} lies up to {furthest:.4g} m away: its unit is wrong, maybe "
                    "(mm that are declared as m, say)"
                )

    def _of_rate(self) -> Iterator[str]:
        if self.stated:
            least, most = self.stated
            stated = f"{least:g}" if least == most else f"{least:g} to {most:g}"
            yield (
                f"hz of the mapping is {self.hz:g}, the source states {stated} Hz: the mapping's "
                "counts; leave it out where the source is right"
            )


def _merge(mine: dict[str, T], theirs: Mapping[str, T]) -> None:
    for name, one in theirs.items():
        if name in mine:
            mine[name].add(one)
        else:
            mine[name] = one


def watched(
    raw: Episode,
    made: Episode,
    mapping: RobotMapping | None,
    fields: Mapping[str, FieldContract],
) -> Numbers:
    """Of one episode. raw: as it was read; made: what the mapping makes of it. fields: those that
    are kept, as they are stored."""
    found = Numbers()
    for name, value in mapping.fields.items() if mapping else ():
        if name in fields and value.quantity == "gripper":
            found.strokes[name] = Stroke.of(numbers(raw.lowdim, value), value)
    for name, meaning in fields.items():
        if (meaning.quantity, meaning.steps) == ("position", "absolute") and meaning.unit:
            metres = np.asarray(made.lowdim[name]).reshape(made.length, -1) * UNITS[meaning.unit][1]
            low, high = metres.min(axis=0).tolist(), metres.max(axis=0).tolist()
            found.reaches[name] = Reach(low=low, high=high)
    if mapping and mapping.hz is not None and raw.hz != mapping.hz:
        found.hz, found.stated = mapping.hz, (float(raw.hz), float(raw.hz))
    return found


def told(find: Callable[[str], Path | None]) -> list[str]:
    """The doubts in the reports of a conversion's output. find: a path below it → the file; None,
    or no file, where there is none. A report of an earlier release says nothing of them; one that
    lies is no more than so many lines that any terminal can show."""
    said: list[str] = []
    for folder in ("", f"{VALIDATION}/"):
        path = find(folder + REPORT)
        report: Any = read_json(path) if path and path.is_file() else {}
        doubts = report.get("doubts") if isinstance(report, dict) else None
        side = f"{VALIDATION}: " if folder else ""
        texts = [
            one for one in (doubts if isinstance(doubts, list) else ()) if isinstance(one, str)
        ]
        said += [printable(f"{side}{one}") for one in texts[:_MOST_TOLD]]
        if len(texts) > _MOST_TOLD:
            said.append(f"{side}{len(texts) - _MOST_TOLD} more in {folder}{REPORT}")
    return said


def _percent(share: float) -> str:
    """As '61 %'; of what is small two digits, and never all where it is not all."""
    if share == 1 or 0.01 <= share < 0.995:
        return f"{100 * share:.0f} %"
    return f"{100 * share:.2g} %" if share < 0.5 else "more than 99 %"
