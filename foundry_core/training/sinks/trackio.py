"""Runs of trackio, in its database on this machine."""

from typing import ClassVar, Literal

from pydantic import Field

from foundry_core.errors import FoundryError
from foundry_core.training.sinks.base import MetricSink, RunInfo, RunWriter


class TrackioSink(MetricSink):
    """One run per training, `<stage>-<key>`; `trackio show` shows them. Where trackio's files lie
    its own variable TRACKIO_DIR says."""

    kind: Literal["trackio"] = "trackio"
    takes_throughput: ClassVar[bool] = True
    project: str = Field("foundry", description="that the runs belong to")

    def open(self, run: RunInfo) -> RunWriter:
        try:
            import trackio
        except ImportError as error:
            raise FoundryError(
                f"trackio is not installed here ({error})",
                "pip install 'foundry-robotics[trackio]'",
            ) from None
        opened = trackio.init(
            project=self.project,
            name=f"{run.stage}-{run.key[:12]}",
            resume="allow",
            config={"seed": run.seed, "total_steps": run.total_steps},
            embed=False,
        )
        return RunWriter(opened)


SINK = TrackioSink
