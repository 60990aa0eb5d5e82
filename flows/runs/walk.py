"""How one stage of a run is executed is the caller's: as a Prefect task, or simply here and now."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from foundry_core.execution.job import StageFailed

if TYPE_CHECKING:
    from flows.runs.engine import PipelineRun, RunResult


class StagesFailed(RuntimeError):
    """Some stages failed, or were not reached because of that."""


class Pending(Protocol):
    def completed(self) -> bool:
        """Waits for its end. False when it failed, or something upstream of it did."""


# (run, stage, what it needs among those submitted before); returns at once or when it has ended.
Submit = Callable[["PipelineRun", str, Sequence[Pending]], Pending]


class Work(Protocol):
    """What can be carried out from start to end: a run of a pipeline, or an ablation."""

    @property
    def title(self) -> str:
        """What lists call it."""

    def start(self) -> None:
        """Records what is about to happen, before anything happens."""

    def walk(self, submit: Submit) -> None:
        """Executes what must run. Raises StagesFailed when not everything came through."""

    def finish(self, status: str, error: str = "") -> "RunResult":
        """Records the end."""


@dataclass(frozen=True)
class After(Pending):
    """Waits for another stage, whatever becomes of it: what it leaves is of use, not needed."""

    other: Pending

    def completed(self) -> bool:
        self.other.completed()
        return True


@dataclass(frozen=True)
class Ended:
    """A stage that was executed when it was submitted."""

    succeeded: bool

    def completed(self) -> bool:
        return self.succeeded


def in_order(run: "PipelineRun", name: str, upstream: Sequence[Pending]) -> Ended:
    """Executes the stage in this thread."""
    if not all(one.completed() for one in upstream):
        return Ended(False)
    try:
        run.stage(name)
    except StageFailed as error:
        run.fail(name, error)
        return Ended(False)
    return Ended(True)
