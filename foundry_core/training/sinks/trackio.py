"""Runs of trackio, in its database on this machine."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from foundry_core.errors import FoundryError
from foundry_core.training.sinks.base import MetricSink, RunInfo


class TrackioSink(MetricSink):
    """One run per training, `<stage>-<key>`; `trackio show` shows them. Where trackio's files lie
    its own variable TRACKIO_DIR says."""

    kind: Literal["trackio"] = "trackio"
    takes_throughput: ClassVar[bool] = True
    project: str = "foundry"

    def open(self, run: RunInfo) -> "TrackioWriter":
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
        return TrackioWriter(opened)


class TrackioWriter:
    """run: what trackio.init gave."""

    def __init__(self, run: Any) -> None:
        self._run = run

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


SINK = TrackioSink
