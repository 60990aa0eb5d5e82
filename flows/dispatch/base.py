"""Where a stage is executed: here, by a worker of a pool with GPUs, as a job of a cluster.

One interface, so that a pipeline, an ablation and a test differ in one word. Only a stage that asks
for GPUs leaves this process: what converts and measures is cheap, and a queue would only make it
wait. A member of the set is one module here, or one of an installed distribution: see
docs/extending.md.
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from foundry_core.config.registry import Registry
from foundry_core.errors import FoundryError

if TYPE_CHECKING:
    from foundry_core.execution.job import Observer, Outcome, StageJob
    from foundry_core.lineage.events import EventLog
    from foundry_core.pipeline.stage import Resources
    from foundry_core.store.base import Store


class Backend(ABC):
    """Executes jobs whose inputs are committed, as `foundry_core.execution.runner.execute` does,
    wherever. Made once per run; raises FoundryError when what it needs cannot be reached."""

    name: ClassVar[str]

    def remote(self, resources: "Resources") -> bool:
        """Whether such a stage leaves this machine: then it needs none of its CPU slots."""
        return False

    def check(self, stage: str, resources: "Resources") -> None:  # noqa: B027
        """Raises FoundryError for a stage that can never start where it would run."""

    def notes(self, stage: str, resources: "Resources") -> Sequence[str]:
        """What a person should know who waits for such a stage, one line each: that it gets less
        than it asks for, that nobody is there yet who could take it up."""
        return ()

    @abstractmethod
    def run(
        self,
        job: "StageJob",
        store: "Store",
        events: "EventLog",
        *,
        observe: "Observer",
        cancelled: threading.Event,
    ) -> "Outcome":
        """Returns when the job has ended. Raises StageFailed, Interrupted or LeaseLost; `cancelled`
        is how a person ends it early."""


BACKENDS: Registry[type[Backend]] = Registry(
    group="foundry.dispatch",
    package="flows.dispatch",
    attribute="BACKEND",
    noun="dispatch backend",
    dashes=True,
)


def make_backend(name: str) -> Backend:
    """Raises FoundryError for an unknown name, or when what it needs cannot be reached."""
    return BACKENDS.get(name)()


def in_config(stage: str) -> str:
    """What a person calls the stage of a variant (`base:model`) in a pipeline's file."""
    return stage.rpartition(":")[2]


def too_few_gpus(stage: str, wanted: float, present: float, where: str) -> FoundryError:
    return FoundryError(
        f"stage {stage!r} asks for {wanted:g} GPUs, {where} has {present:g}",
        f"set {in_config(stage)}.resources.gpus, or run it where they are: --dispatch gpu-pool or "
        "ray-job",
    )
