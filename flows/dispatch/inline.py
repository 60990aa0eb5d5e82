"""Every stage is a child process of the run."""

import threading

from flows.dispatch.base import Backend
from foundry_core.execution.job import Observer, Outcome, StageJob
from foundry_core.execution.runner import execute
from foundry_core.lineage.events import EventLog
from foundry_core.store.base import Store


class Inline(Backend):
    """Stages with GPUs use those of this machine."""

    name = "inline"

    def run(
        self,
        job: StageJob,
        store: Store,
        events: EventLog,
        *,
        observe: Observer,
        cancelled: threading.Event,
    ) -> Outcome:
        return execute(job, store, events, observe=observe, cancelled=cancelled)


BACKEND = Inline
