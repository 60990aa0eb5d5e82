"""What attempts of the past say of how long another amount of work takes.

Each took a fixed part, its start, and a part that grows with the amount. Of two amounts a line
tells both. Of one nobody can say how much was start: a short attempt tells nothing of a much larger
one, and no hours are promised from some seconds.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import log
from typing import Any, NamedTuple

from foundry_core.home import cached, keep
from foundry_core.pipeline.stage import Work

# A stage's process starts, imports and commits in no less than this, whatever there is to do.
STARTUP_SECONDS = 3.0
# An attempt that lasted this long was not mostly start: that is 10 to 30 s for a training.
TELLING_SECONDS = 60.0
# Up to so many times the amount, whatever was start: wrong by no more than this.
_NEAR = 2.0
# No attempt, however long, tells of more than so many times its amount.
_FAR = 20.0
# Two attempts tell what a unit takes if they differ by more than starts do among themselves.
_APART_SECONDS = 10.0
# A line that makes the start much less than nothing is none: attempts of unlike stages.
_LEAST_START = -5.0
_KEPT = 6
_FILE = "attempts-1.json"


class Attempt(NamedTuple):
    """amount: of work, in the unit of its list. gpus: that it asked for."""

    amount: float
    seconds: float
    gpus: int = 0


class Line(NamedTuple):
    """Seconds = start + each · amount; known up to the largest amount."""

    start: float
    each: float
    largest: float

    def seconds(self, amount: float) -> float | None:
        """None for an amount that is too far from those it was made of."""
        return self.start + self.each * amount if amount <= _FAR * self.largest else None


# kind → unit → stage ("": of any stage) → attempts, the last one last.
Attempts = Mapping[str, Mapping[str, Mapping[str, Sequence[Attempt]]]]


def line_through(attempts: Iterable[Attempt]) -> Line | None:
    """By least squares; None where they are too much alike, or do not lie on one."""
    found = list(attempts)
    if len(found) < 2:
        return None
    small, large = min(found), max(found)
    if large.amount < _NEAR * small.amount or large.seconds - small.seconds < _APART_SECONDS:
        return None
    amount = sum(one.amount for one in found) / len(found)
    seconds = sum(one.seconds for one in found) / len(found)
    each = sum((one.amount - amount) * (one.seconds - seconds) for one in found) / sum(
        (one.amount - amount) ** 2 for one in found
    )
    start = seconds - each * amount
    if each <= 0 or start < _LEAST_START:
        return None
    return Line(start=max(0.0, start), each=each, largest=large.amount)


def scaled(seconds: float, then: Work | None, now: Work | None) -> float | None:
    """What took so long, with another amount of work; as it was where amounts tell nothing; None
    where the amount is much larger and the time was short."""
    if then is None or now is None or then.unit != now.unit or then.amount <= 0:
        return seconds
    times = now.amount / then.amount
    if times > _FAR or (times > _NEAR and seconds < TELLING_SECONDS):
        return None
    constant = min(seconds, STARTUP_SECONDS)
    return constant + (seconds - constant) * times


def told(attempts: Sequence[Attempt], work: Work) -> float | None:
    """Seconds for the work by attempts of the same unit: of nearly its amount, else by a line
    through all, else of the nearest. None where they say too little."""
    if not attempts:
        return None
    near = [one for one in attempts if one.amount <= _NEAR * work.amount <= _NEAR**2 * one.amount]
    line = line_through(attempts)
    if not near and line is not None:
        return line.seconds(work.amount)
    nearest = min(near or attempts, key=lambda one: abs(log(max(work.amount, 1e-9) / one.amount)))
    return scaled(nearest.seconds, Work(unit=work.unit, amount=nearest.amount), work)


def of_stage(known: Attempts, kind: str, unit: str, stage: str, gpus: int) -> list[Attempt]:
    """Those of the stage on as many GPUs, else of any stage of its kind."""
    by_stage = known.get(kind, {}).get(unit, {})
    found = by_stage.get(stage) or by_stage.get("", ())
    return [one for one in found if one.gpus == gpus]


def known_attempts() -> Attempts:
    """What this home remembers."""
    return {
        kind: {
            unit: {stage: [Attempt(*one) for one in found] for stage, found in stages.items()}
            for unit, stages in units.items()
        }
        for kind, units in cached(_FILE).items()
    }


def remember(kind: str, unit: str, stage: str, attempt: Attempt) -> None:
    """For plans to come: the last attempts, one of each amount."""
    found: dict[str, dict[str, Any]] = {kind: dict(units) for kind, units in cached(_FILE).items()}
    stages = dict(found.setdefault(kind, {}).get(unit, {}))
    for name in (stage, ""):
        before = [one for one in stages.get(name, []) if one[::2] != [attempt.amount, attempt.gpus]]
        stages[name] = [*before, list(attempt)][-_KEPT:]
    found[kind][unit] = stages
    keep(_FILE, found)
