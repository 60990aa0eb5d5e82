"""What a metric sink is, and the writers of a run together."""

import contextlib
import logging
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from foundry_core.pipeline.stage import Config

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """The training whose metrics come. first_step: completed steps it resumes after, or 0."""

    stage: str
    key: str
    seed: int
    first_step: int
    total_steps: int


class MetricWriter(Protocol):
    """An open sink."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """A row of metrics.jsonl after `step` completed steps: means since the row before."""
        ...

    def close(self) -> None: ...


class RunWriter:
    """Of trackers whose run has `log(values, step=...)` and `finish()`."""

    def __init__(self, run: Any) -> None:
        self._run = run

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


class MetricSink(Config):
    """Base of every sink's config, chosen by `kind`.

    A training that was killed resumes at its last checkpoint and gives the rows after it again:
    `open` is then called with that checkpoint as first_step, and steps beyond it may be there
    already.
    """

    kind: str
    takes_throughput: ClassVar[bool] = False
    """Whether it sees rows of throughput.jsonl, too, by names throughput/<name>. They differ
    between any two runs."""

    def open(self, run: RunInfo) -> MetricWriter:
        """Called on rank 0 before the first step. Imports here what the sink needs."""
        raise NotImplementedError


class MetricWriters:
    """The writers of a run. One that fails is left out from there on, with a line in the log: the
    training is worth more than its plot."""

    def __init__(self, sinks: Sequence[MetricSink], run: RunInfo) -> None:
        self._open: list[tuple[str, MetricWriter]] = []
        self._timed = {sink.kind for sink in sinks if sink.takes_throughput}
        for sink in sinks:
            with _left_out_if_it_fails(sink.kind):
                self._open.append((sink.kind, sink.open(run)))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self._write(step, values, {kind for kind, _ in self._open})

    def write_throughput(self, step: int, values: Mapping[str, float]) -> None:
        """A row of throughput.jsonl, for the sinks that take it."""
        if values:
            named = {f"throughput/{name}": value for name, value in values.items()}
            self._write(step, named, self._timed)

    def _write(self, step: int, values: Mapping[str, float], kinds: Container[str]) -> None:
        still_open = []
        for kind, writer in self._open:
            if kind not in kinds:
                still_open.append((kind, writer))
                continue
            with _left_out_if_it_fails(kind):
                writer.write(step, values)
                still_open.append((kind, writer))
        self._open = still_open

    def close(self) -> None:
        for kind, writer in self._open:
            with _left_out_if_it_fails(kind):
                writer.close()
        self._open = []


@contextlib.contextmanager
def _left_out_if_it_fails(kind: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # a tracker's client may raise anything
        reason = str(error) or type(error).__name__
        _log.warning("metric sink %s is left out from here on: %s", kind, reason.splitlines()[0])
