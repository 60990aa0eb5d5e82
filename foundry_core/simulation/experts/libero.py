"""LIBERO's scripted expert: pick and place in libero_object and libero_spatial."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from foundry_core.data.contract.statements import DataContract
from foundry_core.errors import FoundryError
from foundry_core.simulation.experts.base import DemoExpert
from foundry_core.simulation.libero.catalog import PACKAGES
from foundry_core.simulation.libero.config import LiberoScene

if TYPE_CHECKING:
    from foundry_core.simulation.collection import (
        CollectDemosRecipe,
        CollectJob,
        CollectScenesRecipe,
    )
    from foundry_core.simulation.demonstrations import Demonstration
    from foundry_core.simulation.scenes import Scene

_UNSOLVED = ("in_the_top_drawer", "on_the_stove", "on_the_wooden_cabinet")
"""Bowls in and on fixtures: their drawn starts are not like the published ones, and the drawer is
too narrow for the hand."""


class LiberoExpert(DemoExpert):
    """scene: as the benchmark `libero` is to show it. The starts are drawn, none is a published
    one.

    noise: standard deviation of what is added to the six pose numbers of an action, each within
    [-1, 1], before it is carried out; recorded is what the expert wanted, so that a policy learns
    to come back.
    """

    kind: Literal["libero"] = "libero"
    packages: ClassVar[tuple[str, ...]] = PACKAGES

    scene: LiberoScene = Field(LiberoScene(), description="as the benchmark `libero` is to show it")
    noise: float = Field(
        0.0,
        ge=0,
        le=1,
        description="standard deviation on the six pose numbers of an action, each within [-1, 1]; "
        "recorded is what the expert wanted",
    )
    max_steps: int = Field(200, ge=1, description="control steps that it may take")

    def check_tasks(self, tasks: Sequence[str]) -> None:
        suite = self.scene.suite
        if suite not in ("libero_object", "libero_spatial"):
            raise FoundryError(
                f"there is no expert for {suite}", "libero_object and libero_spatial have one"
            )
        for name in tasks:
            self.scene.problem(name)
            if any(f"_bowl_{where}_" in name for where in _UNSOLVED):
                raise FoundryError(f"there is no expert for {name!r}", "leave this task out")

    def data_contract(self) -> DataContract:
        return self.scene.data_contract()

    def record(self, job: "CollectJob[CollectDemosRecipe]") -> "Demonstration":
        from foundry_core.simulation.libero.demonstrations import record

        return record(self, job)

    def record_scenes(self, job: "CollectJob[CollectScenesRecipe]") -> "list[Scene]":
        from foundry_core.simulation.libero.scenes import record_scenes

        return record_scenes(self, job)


EXPERT = LiberoExpert
