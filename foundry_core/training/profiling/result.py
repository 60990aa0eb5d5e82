"""What a profile found, as data."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from foundry_core.training.profiling.ceiling import Ceiling
from foundry_core.training.profiling.counting import HostRead
from foundry_core.training.profiling.graphs import Graphs
from foundry_core.training.profiling.memory import Memory
from foundry_core.training.profiling.operators import Operators


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What was measured: of the recipe and the resources what decides speed. batch: modality →
    samples of this worker."""

    stage: str
    device: str
    threads: int
    torch: str
    precision: str
    compile: str
    strategy: str
    recompute: Sequence[str]
    micro_batch: int | None
    loader_workers: int
    workers: int
    batch: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class StepTimes:
    """Of steps that nothing watched, after `warmup` others. each: seconds, the wait for the batch
    included. data_wait: seconds that the host waited for batches, per step."""

    warmup: int
    each: Sequence[float]
    median: float
    least: float
    data_wait: float
    data_wait_share: float
    samples_per_second: float
    tokens_per_second: float | None


@dataclass(frozen=True, kw_only=True)
class Part:
    """Of one step. seconds are by the watched steps."""

    name: str
    parameters: int
    forward_seconds: float
    backward_seconds: float
    forward_flops: float
    backward_flops: float
    activation_bytes: int

    @property
    def seconds(self) -> float:
        return self.forward_seconds + self.backward_seconds

    @property
    def flops(self) -> float:
        return self.forward_flops + self.backward_flops


@dataclass(frozen=True, kw_only=True)
class Arithmetic:
    """flops: of a step, found as `how` says; rate: FLOP/s that the median step reaches; mfu: its
    share of the peak, None where no peak is known."""

    flops: float
    how: str
    rate: float
    mfu: float | None


@dataclass(frozen=True, kw_only=True)
class Profile:
    """watched_seconds: of a step whose parts were watched: `parts` and `phases` (what belongs to no
    part) add up to it. unused: parameters that a step gives no gradient; frozen: how many do not
    train. host_reads: of one step. graphs: None where nobody asked."""

    setting: Setting
    times: StepTimes
    parts: Sequence[Part]
    phases: Mapping[str, float]
    watched_seconds: float
    operators: Operators
    memory: Memory
    unused: Sequence[str]
    frozen: int
    host_reads: Sequence[HostRead]
    arithmetic: Arithmetic
    ceiling: Ceiling
    graphs: Sequence[Graphs] | None
    notes: Sequence[str]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
