"""Which stages of a run are executed, in what order, and what a failure stops.

How one stage is executed is the caller's: as a Prefect task, or simply here and now.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from foundry_core.execution.job import StageFailed

if TYPE_CHECKING:
    from flows.runs.engine import PipelineRun, RunResult


class StagesFailed(RuntimeError):
    """Some stages failed, or were not reached because of that."""


class Pending(Protocol):
    """A stage that was submitted."""

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
        run.fail(name, str(error))
        return Ended(False)
    return Ended(True)


def walk(run: "PipelineRun", submit: Submit = in_order) -> None:
    """Submits everything that the plan did not settle, upstream first, and waits for it. A failed
    stage stops what needs it and nothing else; then StagesFailed."""
    submitted: dict[str, Pending] = {}
    try:
        for stage in run.affected():
            needed = (up for _, _, up in run.prepared.pipeline.stages[stage].upstream())
            upstream = [submitted[up] for up in needed if up in submitted]
            submitted[stage] = submit(run, stage, upstream)
        failed = [name for name, stage in submitted.items() if not stage.completed()]
    except BaseException:
        # Ctrl-C, or a cancellation: whoever waits for threads waits for stages, which look at this.
        run.cancelled.set()
        raise
    if failed:
        raise StagesFailed(f"stages not completed: {', '.join(failed)}")
