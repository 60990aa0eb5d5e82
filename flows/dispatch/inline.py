"""Every stage is a child process of the run."""

import threading

from flows.dispatch.base import Backend, too_few_gpus
from foundry_core.execution.job import Observer, Outcome, StageJob
from foundry_core.execution.runner import execute
from foundry_core.identity.environment import visible_gpus
from foundry_core.lineage.events import EventLog
from foundry_core.pipeline.stage import Resources
from foundry_core.store.base import Store


class Inline(Backend):
    """Stages with GPUs use those of this machine."""

    name = "inline"

    def check(self, stage: str, resources: Resources) -> None:
        if resources.gpus and not self.remote(resources):
            present = visible_gpus()
            if present < resources.gpus:
                raise too_few_gpus(stage, resources.gpus, present, "this machine")

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
