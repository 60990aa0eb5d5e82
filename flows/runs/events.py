"""What a run says while it goes on, for whoever shows it: a terminal, a log, a web page."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from foundry_core.execution.job import Outcome


@dataclass(frozen=True)
class StageStarted:
    name: str


@dataclass(frozen=True)
class StageProgress:
    """state: done, total, message, values; each may be missing."""

    name: str
    state: Mapping[str, Any]


@dataclass(frozen=True)
class StageFinished:
    name: str
    outcome: Outcome


@dataclass(frozen=True)
class StageFailedEvent:
    """cancelled: it was stopped by somebody, and nothing is wrong with it."""

    name: str
    error: str
    cancelled: bool = False


@dataclass(frozen=True)
class Note:
    """Something a person should know that fails nothing."""

    text: str


RunEvent = StageStarted | StageProgress | StageFinished | StageFailedEvent | Note
# Called from the threads in which stages run.
RunObserver = Callable[[RunEvent], None]


def unobserved(event: RunEvent) -> None:
    """The observer of a run that nobody watches."""
