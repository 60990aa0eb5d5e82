"""What the ranks of a run and the process that launched them tell each other.

`foundry_core.training.launch` makes an actor of it beside the launching process. So it outlives the
groups that Ray starts again, and needs no disk that both sides see.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# done, total, message, values: as Progress takes them.
Told = tuple[float, float, str, Mapping[str, float]]


@dataclass(frozen=True, kw_only=True)
class End:
    """What rank 0 says when all is done. receipt: of what it left elsewhere; None where it wrote
    where the launching process reads."""

    metrics: Mapping[str, float]
    receipt: Any = None


class Board:
    """The newest of each kind."""

    def __init__(self) -> None:
        self._progress: Told | None = None
        self._stop = False
        self._mistake: tuple[str, str] | None = None
        self._end: End | None = None

    def tell_progress(self, *told: Any) -> None:
        done, total, message, values = told
        self._progress = (done, total, message, values)

    def progress(self) -> Told | None:
        """What rank 0 told last."""
        return self._progress

    def ask_to_stop(self) -> None:
        self._stop = True

    def stopping(self) -> bool:
        """Whether the ranks are to save and end."""
        return self._stop

    def tell_mistake(self, message: str, hint: str) -> None:
        """A mistake of the user's. Ray starts a group again after any error: one that finds this
        ends at once."""
        self._mistake = (message, hint)

    def mistake(self) -> tuple[str, str] | None:
        """(message, hint)."""
        return self._mistake

    def tell_end(self, end: End) -> None:
        self._end = end

    def end(self) -> End | None:
        """None as long as the ranks work, and when they were stopped before they were done."""
        return self._end
