"""What the stages that measure models share in their resources. Planning imports this."""

from typing import Any

from pydantic import Field

from foundry_core.errors import FoundryError
from foundry_core.pipeline import stage


class QualityResources(stage.Resources):
    batch: int = Field(8, ge=1, description="rows that the model reads at once")
    device: str = Field("cpu", description="where the model runs")


def check_device(resources: Any) -> None:
    """Where a stage runs, and whether that has a GPU, is looked up by `gpus`."""
    if resources.device.startswith("cuda") and not resources.gpus:
        raise FoundryError(
            f"device={resources.device!r} is a GPU, and the stage asks for none (gpus=0)",
            "set its resources.gpus=1, or device=cpu",
        )
