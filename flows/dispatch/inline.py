"""Every stage is a child process of the run."""

import os
import threading
from collections.abc import Sequence

from flows.dispatch.base import Backend, too_few_gpus
from flows.dispatch.slots import cpus_of, here, workers_of
from foundry_core.execution.job import Observer, Outcome, StageJob
from foundry_core.execution.runner import execute
from foundry_core.identity.environment import visible_gpus
from foundry_core.lineage.events import EventLog
from foundry_core.pipeline.stage import Resources
from foundry_core.store.base import Store


def _in_a_cluster(resources: Resources) -> bool:
    """Whether several workers of a stage that starts here are placed by a Ray that runs already."""
    return workers_of(resources) > 1 and bool(os.environ.get("RAY_ADDRESS"))


class Inline(Backend):
    """Stages with GPUs use those of this machine."""

    name = "inline"

    def check(self, stage: str, resources: Resources) -> None:
        if resources.gpus and not self.remote(resources) and not _in_a_cluster(resources):
            present = visible_gpus()
            if present < resources.gpus:
                raise too_few_gpus(stage, resources.gpus, present, "this machine")

    def notes(self, stage: str, resources: Resources) -> Sequence[str]:
        if self.remote(resources):
            return ()
        if _in_a_cluster(resources):
            return ("its workers run in the Ray cluster of RAY_ADDRESS, which is asked then",)
        wanted, present = cpus_of(resources), here()
        if wanted <= present:
            return ()
        return (f"asks for {wanted} CPUs, this machine has {present}: it gets all of them, alone",)

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
