"""What all backends share that hand a stage to a queue elsewhere and wait for it.

Submissions are called <key>-a<n>: whoever asks for a key that is being built waits for that
submission instead of adding one, a coordinator that is started again included.
"""

import contextlib
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from flows.dispatch.inline import Inline
from foundry_core.errors import FoundryError
from foundry_core.execution.job import (
    Interrupted,
    Observer,
    Outcome,
    StageFailed,
    StageJob,
    outcome_of,
)
from foundry_core.execution.runner import reuse
from foundry_core.lineage.events import EventLog
from foundry_core.pipeline.stage import Resources
from foundry_core.store.base import Store

T = TypeVar("T")
# A restart of what queues must not end a training of days.
OUTAGE_SECONDS = 600.0
_MOST_LOST = 2


@dataclass(frozen=True, kw_only=True)
class Submission:
    """ref: its id in the queue. mine: whether this run may cancel it; another run's submission is
    perhaps still waited for there."""

    ref: str
    mine: bool


@dataclass(frozen=True, kw_only=True)
class Status:
    """lost: its process or its machine died. message: why it ended so. progress: what to show
    while it is open. stage_failed: whether the stage itself named what went wrong."""

    state: Literal["open", "completed", "failed", "cancelled", "lost"]
    message: str = ""
    progress: Mapping[str, Any] | None = None
    stage_failed: bool = False


class RemoteBackend(Inline):
    """Hands over the stages that ask for GPUs; everything else runs here."""

    poll_seconds: float

    @abstractmethod
    def submit(self, job: StageJob, store: Store) -> Submission:
        """The open submission of the job's key, or a new one."""

    @abstractmethod
    def status(self, submission: Submission) -> Status:
        """What became of it so far."""

    @abstractmethod
    def cancel(self, submission: Submission, reason: str) -> None:
        """Ends it, and waits some seconds for the end, so that its lease is free afterwards."""

    @abstractmethod
    def describe(self, submission: Submission) -> str:
        """Where a person finds it: completes 'see ...'."""

    @abstractmethod
    def away(self, error: Exception) -> bool:
        """Whether `error` says that the queue is away for now: then the call is repeated."""

    def release(self, submission: Submission) -> None:
        """It is not waited for any more."""

    def remote(self, resources: Resources) -> bool:
        return resources.gpus > 0

    def run(
        self,
        job: StageJob,
        store: Store,
        events: EventLog,
        *,
        observe: Observer,
        cancelled: threading.Event,
    ) -> Outcome:
        if not self.remote(job.resources):
            return super().run(job, store, events, observe=observe, cancelled=cancelled)
        return reuse(job, store) or self._build(job, store, observe, cancelled)

    def _build(
        self, job: StageJob, store: Store, observe: Observer, cancelled: threading.Event
    ) -> Outcome:
        """Submits until one has ended that says what became of the stage."""
        lost = 0
        while True:
            submission = self._ask(lambda: self.submit(job, store), observe)
            try:
                end = self._ended(submission, job, observe, cancelled)
            finally:
                self.release(submission)
            if end.state == "completed":
                return outcome_of(job, store)
            if end.state == "cancelled" and submission.mine:
                where = self.describe(submission)
                raise Interrupted(f"stage {job.spec.name!r}: it was cancelled elsewhere: {where}")
            lost += end.state == "lost"
            if end.state == "failed" or lost > _MOST_LOST:
                known = store.last_failure(job.spec.key) if end.stage_failed else None
                error = known or end.message or "no reason given"
                hint = f"see {self.describe(submission)}"
                raise StageFailed(job.spec.name, error, hint, job.log)
            if end.state == "lost":
                observe({"message": f"its worker died; again from the last checkpoint ({lost})"})

    def _ended(
        self,
        submission: Submission,
        job: StageJob,
        observe: Observer,
        cancelled: threading.Event,
    ) -> Status:
        """Waits for the end. Raises Interrupted when `cancelled` came first."""
        shown: Mapping[str, Any] | None = None
        while True:
            if cancelled.is_set():
                if submission.mine:
                    # A queue that is away cannot be asked: the reaper finds what nobody waits for.
                    with contextlib.suppress(FoundryError):
                        self.cancel(submission, f"run {job.run_id} was cancelled")
                raise Interrupted(f"stage {job.spec.name!r} was cancelled")
            status = self._ask(lambda: self.status(submission), observe)
            if status.state != "open":
                return status
            if status.progress and status.progress != shown:
                shown = status.progress
                observe(shown)
            cancelled.wait(self.poll_seconds)

    def _ask(self, call: Callable[[], T], observe: Observer) -> T:
        waiting = {"message": f"waits until {self.name} answers again"}
        return patiently(call, self.away, lambda: observe(waiting))


def patiently(
    call: Callable[[], T],
    away: Callable[[Exception], bool],
    waits: Callable[[], None],
    seconds: float = OUTAGE_SECONDS,
) -> T:
    """call(), again and again for at most `seconds` while it raises what `away` is true of; `waits`
    is called before each pause. Other errors are raised at once."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return call()
        except Exception as error:
            if not away(error) or time.monotonic() > deadline:
                raise
        waits()
        time.sleep(min(5.0, seconds / 10))


def number_of(name: str | None) -> int:
    """<key>-a3 → 3; 0 for what no backend has named."""
    number = (name or "").rpartition("-a")[2]
    return int(number) if number.isdecimal() else 0


def next_name(key: str, known: Iterable[str | None]) -> str:
    """<key>-a<n>, the first that is free."""
    return f"{key}-a{max(map(number_of, known), default=0) + 1}"
