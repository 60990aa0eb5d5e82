"""Event files that TensorBoard shows."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from foundry_core.errors import FoundryError
from foundry_core.training.sinks.base import MetricSink, RunInfo


class TensorBoardSink(MetricSink):
    """Scalars in `<folder>/<stage>-<key>`. Of steps that a resumed training gives again,
    TensorBoard shows the later ones."""

    kind: Literal["tensorboard"] = "tensorboard"
    takes_throughput: ClassVar[bool] = True
    folder: str = Field(description="what `tensorboard --logdir` is given")

    def open(self, run: RunInfo) -> "TensorBoardWriter":
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise FoundryError(
                f"tensorboard is not installed here ({error})",
                "pip install 'foundry-robotics[tensorboard]'",
            ) from None
        folder = Path(self.folder).expanduser() / f"{run.stage}-{run.key[:12]}"
        return TensorBoardWriter(SummaryWriter(str(folder), purge_step=run.first_step + 1))


class TensorBoardWriter:
    """events: a SummaryWriter."""

    def __init__(self, events: Any) -> None:
        self._events = events

    def write(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._events.add_scalar(name, value, step)

    def close(self) -> None:
        self._events.close()


SINK = TensorBoardSink
