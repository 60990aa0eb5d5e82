"""What a source of scripted demonstrations declares. Planning imports this.

A member is one module that defines `EXPERT`, a `DemoExpert` subclass; `expert.kind` of a
`collect_demos` or `collect_scenes` stage chooses it.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar

from foundry_core.config.registry import OneOf, Registry
from foundry_core.data.contract.statements import DataContract
from foundry_core.pipeline.stage import Config

if TYPE_CHECKING:
    from foundry_core.simulation.collection import (
        CollectDemosRecipe,
        CollectJob,
        CollectScenesRecipe,
    )
    from foundry_core.simulation.demonstrations import Demonstration
    from foundry_core.simulation.scenes import Scene


class DemoExpert(Config):
    """Base of every expert's config. packages: installed distributions that its demonstrations
    depend on."""

    kind: str
    packages: ClassVar[tuple[str, ...]] = ()

    def check_tasks(self, tasks: Sequence[str]) -> None:
        """FoundryError for a task that it has not, or cannot solve."""
        raise NotImplementedError

    def data_contract(self) -> DataContract:
        """What its demonstrations hold."""
        raise NotImplementedError

    def record(self, job: "CollectJob[CollectDemosRecipe]") -> "Demonstration":
        """The slot's first successful episode, a pure function of the job. Imports the simulator
        here, and nowhere before. FoundryError after too many failures in a row."""
        raise NotImplementedError

    def record_scenes(self, job: "CollectJob[CollectScenesRecipe]") -> "list[Scene]":
        """The slot's pictures with captions, in order, a pure function of the job. An expert that
        has no words for what it sees leaves this out."""
        raise NotImplementedError

    @property
    def describes(self) -> bool:
        """Whether it has words for what it sees: `record_scenes` is its own."""
        return type(self).record_scenes is not DemoExpert.record_scenes


EXPERTS: Registry[type[DemoExpert]] = Registry(
    group="foundry.experts",
    package=__package__,
    attribute="EXPERT",
    noun="expert",
)
AnyExpert = Annotated[DemoExpert, OneOf(EXPERTS, "kind")]
