"""Runs of Weights & Biases."""

import os
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from foundry_core.errors import FoundryError
from foundry_core.training.sinks.base import MetricSink, RunInfo, RunWriter


class WandbSink(MetricSink):
    """One run per training, `<stage>-<key>`. Nothing leaves the machine unless WANDB_MODE or `mode`
    says online: an offline run lies in `folder`, and `wandb sync` uploads it."""

    kind: Literal["wandb"] = "wandb"
    takes_throughput: ClassVar[bool] = True
    project: str = Field("foundry", description="that the runs belong to")
    folder: str = Field(".", description="where the folder wandb/ is made")
    mode: Literal["offline", "online", "disabled"] | None = Field(
        None, description="null: as WANDB_MODE says, else offline"
    )

    def open(self, run: RunInfo) -> RunWriter:
        try:
            import wandb
        except ImportError as error:
            raise FoundryError(
                f"wandb is not installed here ({error})", "pip install 'foundry-robotics[wandb]'"
            ) from None
        folder = Path(self.folder).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{run.stage}-{run.key[:12]}"
        opened = wandb.init(
            project=self.project,
            dir=str(folder),
            id=name,
            name=name,
            resume="allow",
            mode=self.mode or os.environ.get("WANDB_MODE") or "offline",
            config={"seed": run.seed, "total_steps": run.total_steps},
        )
        return RunWriter(opened)


SINK = WandbSink
