"""Configs of the simulator that recipes embed. No NumPy, no MuJoCo: planning imports this."""

from collections.abc import Mapping
from typing import Self

from pydantic import Field, field_validator, model_validator

from foundry_core.config.suggest import nearest
from foundry_core.data.contract.fields import FieldContract
from foundry_core.data.contract.statements import CameraContract, DataContract
from foundry_core.errors import FoundryError
from foundry_core.pipeline.stage import Config
from foundry_core.simulation.catalog import (
    ACTION_GRIPPER,
    ACTION_ROT6D,
    ACTION_XYZ,
    CAMERAS,
    CONTROL_HZ,
    GRIPPER,
    ROT6D,
    TASK_SETS,
    TASKS,
    XYZ,
    TaskSpec,
)

MAX_BUFFER = 1024


class RenderConfig(Config):
    """What the cameras see. Collection and evaluation must agree on it, or the policy is tested
    on pictures it never saw.

    Frames are drawn at size x supersample and averaged over supersample² blocks: the software
    rasteriser's own antialiasing costs more and is worse.
    """

    cameras: tuple[str, ...] = Field(
        ("workspace", "wrist"), min_length=1, description="which ones draw"
    )
    size: int = Field(64, ge=8, description="pixels, square")
    supersample: int = Field(
        2, ge=1, le=8, description="pictures are drawn this many times as large, then averaged"
    )

    @field_validator("cameras")
    @classmethod
    def _known(cls, cameras: tuple[str, ...]) -> tuple[str, ...]:
        for camera in cameras:
            if camera not in CAMERAS:
                raise ValueError(f"unknown camera {camera!r}; {nearest(camera, CAMERAS)}")
        if len(set(cameras)) != len(cameras):
            raise ValueError(f"cameras {cameras} name one twice")
        return cameras

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.size * self.supersample > MAX_BUFFER:
            raise ValueError(
                f"size x supersample = {self.size * self.supersample} exceeds {MAX_BUFFER} pixels"
            )
        return self


MEASURED: Mapping[str, FieldContract] = {
    XYZ: FieldContract(dims=3, quantity="position", unit="m", frame="world"),
    ROT6D: FieldContract(dims=6, quantity="rotation", form="rot6d_rows", frame="world"),
    GRIPPER: FieldContract(dims=1, quantity="gripper", unit="m", closed=0.0, open=0.1),
}
COMMANDED: Mapping[str, FieldContract] = {
    ACTION_XYZ: MEASURED[XYZ],
    ACTION_ROT6D: MEASURED[ROT6D],
    ACTION_GRIPPER: MEASURED[GRIPPER],
}


def cameras_contract(render: RenderConfig) -> dict[str, CameraContract]:
    """What is drawn, and how: a change of either makes other pictures."""
    renderer = f"MuJoCo, averaged over {render.supersample}x{render.supersample}"
    one = CameraContract(drawn=(render.size, render.size), renderer=renderer)
    return dict.fromkeys(render.cameras, one)


def data_contract(render: RenderConfig) -> DataContract:
    """Of demonstrations that are recorded with it."""
    return DataContract(
        hz=CONTROL_HZ, cameras=cameras_contract(render), fields={**MEASURED, **COMMANDED}
    )


def known_tasks(tasks: tuple[str, ...]) -> tuple[str, ...]:
    """`tasks` if all are in the catalogue and distinct, else ValueError naming the nearest."""
    for task in tasks:
        if task not in TASKS:
            raise ValueError(f"unknown task {task!r}; {nearest(task, TASKS)}")
    if len(set(tasks)) != len(tasks):
        raise ValueError(f"tasks {list(tasks)} name one twice")
    return tasks


DEFAULT_TASKS = TASK_SETS["mini"]


def task_spec(name: str) -> TaskSpec:
    """The TaskSpec of a name; FoundryError with the nearest name otherwise."""
    if name not in TASKS:
        raise FoundryError(f"unknown Meta-World task {name!r}", nearest(name, TASKS))
    return TASKS[name]
