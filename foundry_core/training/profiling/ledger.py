"""Shares of whatever grows during a step (seconds, FLOPs), by phase and part of the model."""

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

# What the phases of a step are called (Trainer.phase), and three more: waiting for a batch, all
# that lies between phases, and what only the measurement does.
DATA, REST, MEASURING = "data", "rest", "measuring"
FORWARD, BACKWARD = "forward", "backward"


class Label(NamedTuple):
    """part: "" outside of any."""

    phase: str
    part: str = ""


class Ledger:
    """Every moment from the first mark to `stop` belongs to exactly one label, so that the shares
    add up to the whole. mark: the state of what grows."""

    def __init__(self, mark: Callable[[], Any]) -> None:
        self._mark = mark
        self.label = Label(REST)
        self._marks: list[tuple[Label, Any]] = []

    def start(self) -> None:
        """The first mark."""
        self._marks.append((self.label, self._mark()))

    def stop(self) -> None:
        """The last one."""
        self._marks.append((self.label, self._mark()))

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """The block belongs to this phase."""
        before = self.label
        self._move(Label(name))
        try:
            yield
        finally:
            self._move(before)

    def enter(self, part: str) -> None:
        """What follows in this phase belongs to this part."""
        self._move(Label(self.label.phase, part))

    def totals(self, between: Callable[[Any, Any], float]) -> dict[Label, float]:
        """Label → its share; what the measurement itself took is left out."""
        sums: dict[Label, float] = defaultdict(float)
        for (label, start), (_, end) in pairwise(self._marks):
            if label.phase != MEASURING:
                sums[label] += between(start, end)
        return dict(sums)

    def _move(self, label: Label) -> None:
        if label != self.label:
            self.label = label
            self._marks.append((label, self._mark()))
