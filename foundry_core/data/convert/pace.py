"""How fast a conversion goes, and how long it will take."""

import time
from collections.abc import Callable

from foundry_core.pipeline.stage import Progress

_SURE_SECONDS = 2.0


class Pace:
    """Reports `done` of `total` with a rate and the time left, both of what was worked on: what was
    there already came for nothing. what: of which there are so many per second."""

    def __init__(
        self,
        progress: Progress,
        total: int,
        what: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._progress, self._total, self._what, self._clock = progress, total, what, clock
        self._begun = clock()
        self._done = self._made = 0

    @property
    def next(self) -> int:
        """Which step comes now, from 1."""
        return self._done + 1

    def step(self, message: str, *, amount: int = 1, reused: bool = False, each: float = 1) -> None:
        """`amount` of the total is done, which took as long as it did. each: how many of `what`
        one of them is."""
        self._done += amount
        self._made += 0 if reused else amount
        seconds = self._clock() - self._begun
        if not self._made or seconds < _SURE_SECONDS:
            self._progress(self._done, self._total, message)
            return
        left = seconds / self._made * (self._total - self._done)
        rate = each * self._made / seconds
        text = f"{message}, {_number(rate)} {self._what}/s"
        self._progress(self._done, self._total, f"{text}, {spoken(left)} left" if left else text)


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.2g}"


def spoken(seconds: float) -> str:
    """45 s, 12 min, 3.5 h, 2.1 days"""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 129_600 else f"{seconds / 86_400:.1f} days"
