"""Where a stage is executed: here, by a worker of the GPU pool, or as a Ray job.

One interface, so that a pipeline, an ablation and a test differ in one word. Only training leaves
this process: what converts and measures is cheap, and a second pool would only make it wait.
"""

import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from foundry_core.config.suggest import nearest
from foundry_core.errors import FoundryError

if TYPE_CHECKING:
    from foundry_core.execution.job import Observer, Outcome, StageJob
    from foundry_core.lineage.events import EventLog
    from foundry_core.pipeline.stage import Stage
    from foundry_core.store.base import Store

DispatchName = Literal["inline", "gpu-pool", "ray-job"]
DISPATCHERS: tuple[str, ...] = get_args(DispatchName)


class Dispatcher(Protocol):
    """Executes a job whose inputs are committed; as `foundry_core.execution.runner.execute` does, wherever."""

    name: str

    def remote(self, stage: "type[Stage]") -> bool:
        """Whether jobs of this kind leave the machine: then they need none of its CPU slots."""
        ...

    def run(
        self,
        job: "StageJob",
        store: "Store",
        events: "EventLog",
        *,
        observe: "Observer",
        cancelled: threading.Event,
    ) -> "Outcome":
        """Raises StageFailed, Interrupted or LeaseLost; returns only when the job has ended."""
        ...


class Inline:
    """A child process of this one."""

    name = "inline"

    def remote(self, stage: "type[Stage]") -> bool:
        return False

    def run(
        self,
        job: "StageJob",
        store: "Store",
        events: "EventLog",
        *,
        observe: "Observer",
        cancelled: threading.Event,
    ) -> "Outcome":
        from foundry_core.execution.runner import execute

        return execute(job, store, events, observe=observe, cancelled=cancelled)


class Elsewhere(Inline, ABC):
    """Trains where `train` says; everything else runs inline."""

    def remote(self, stage: "type[Stage]") -> bool:
        return stage.trains

    def run(
        self,
        job: "StageJob",
        store: "Store",
        events: "EventLog",
        *,
        observe: "Observer",
        cancelled: threading.Event,
    ) -> "Outcome":
        from foundry_core.execution.runner import reuse
        from foundry_core.pipeline.registry import stage_kind

        if not self.remote(stage_kind(job.spec.kind)):
            return super().run(job, store, events, observe=observe, cancelled=cancelled)
        return reuse(job, store) or self.train(job, store, observe, cancelled)

    @abstractmethod
    def train(
        self, job: "StageJob", store: "Store", observe: "Observer", cancelled: threading.Event
    ) -> "Outcome":
        """A training that must run; returns when it has ended, raises as `run`."""


def make_dispatcher(name: DispatchName | str, **options: Any) -> Dispatcher:
    """Raises FoundryError for an unknown name, or when what it needs cannot be reached."""
    if name == "inline":
        return Inline()
    if name == "gpu-pool":
        from flows.dispatch.gpu_pool import GpuPool

        return GpuPool(**options)
    if name == "ray-job":
        from flows.dispatch.ray_jobs import RayJobs

        return RayJobs(**options)
    raise FoundryError(f"unknown dispatch {name!r}", nearest(name, DISPATCHERS))
