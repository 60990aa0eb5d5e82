"""ALOHA's scripted expert: it hands the cube from the right arm to the left one."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from foundry_core.config.suggest import nearest
from foundry_core.data.contract.statements import DataContract
from foundry_core.errors import FoundryError
from foundry_core.simulation.aloha.config import PACKAGES, TASKS, AlohaScene
from foundry_core.simulation.experts.base import DemoExpert

if TYPE_CHECKING:
    from foundry_core.simulation.collection import CollectDemosRecipe, CollectJob
    from foundry_core.simulation.demonstrations import Demonstration

_SOLVED = "transfer_cube"


class AlohaExpert(DemoExpert):
    """scene: as the benchmark `aloha` is to show it, of control `poses`."""

    kind: Literal["aloha"] = "aloha"
    packages: ClassVar[tuple[str, ...]] = PACKAGES

    scene: AlohaScene = Field(
        AlohaScene(control="poses"), description="as the benchmark `aloha` is to show it"
    )

    def check_tasks(self, tasks: Sequence[str]) -> None:
        if self.scene.control != "poses":
            raise FoundryError(
                f"the expert commands poses, expert.scene.control is {self.scene.control!r}",
                "set expert.scene.control: poses",
            )
        for name in tasks:
            if name not in TASKS:
                raise FoundryError(f"aloha has no task {name!r}", nearest(name, TASKS))
            if name != _SOLVED:
                raise FoundryError(f"there is no expert for {name!r}", f"it solves {_SOLVED}")

    def data_contract(self) -> DataContract:
        return self.scene.data_contract()

    def record(self, job: "CollectJob[CollectDemosRecipe]") -> "Demonstration":
        from foundry_core.simulation.aloha.demonstrations import record

        return record(self, job)


EXPERT = AlohaExpert
