"""How long a policy takes for a chunk while it is evaluated: by the clock, and of this process's
CPUs. A record of the evaluation and no part of its result."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from foundry_core.evaluation.benchmarks.base import Observation
from foundry_core.evaluation.quality import Measure, ratio
from foundry_core.evaluation.rollout.episodes import PolicyProtocol

TASK = "policy"
Clock = Callable[[], float]


class TimedPolicy:
    """The policy, with a clock at its forward passes. wall, cpu: seconds that only grow."""

    def __init__(
        self,
        policy: PolicyProtocol,
        wall: Clock = time.perf_counter,
        cpu: Clock = time.process_time,
    ) -> None:
        self._policy, self._wall, self._cpu = policy, wall, cpu
        self._sizes: set[int] = set()
        # Of every pass: requests, seconds, CPU seconds.
        self._passes: list[tuple[int, float, float]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._policy, name)

    @property
    def execute_steps(self) -> int:
        return self._policy.execute_steps

    @property
    def cameras(self) -> Sequence[str]:
        return self._policy.cameras

    @property
    def hz(self) -> float | None:
        return self._policy.hz

    def reset(self, client: str, seed: int) -> None:
        """As the policy's."""
        self._policy.reset(client, seed)

    def infer(
        self, requests: Sequence[tuple[str, Observation]], *more: Any
    ) -> Sequence[Mapping[str, np.ndarray]]:
        """As the policy's. The first pass of every size is left out: it compiles and allocates."""
        wall, cpu = self._wall(), self._cpu()
        answers = self._policy.infer(requests, *more)
        size = len(requests)
        if size in self._sizes:
            self._passes.append((size, self._wall() - wall, self._cpu() - cpu))
        self._sizes.add(size)
        return answers

    def measures(self) -> list[Measure]:
        """chunk_ms: from an observation to its chunk, conversions and the rest of its batch
        included. chunk_cpu_ms: of this process's CPUs for each chunk; waiting for a GPU, and what a
        served policy computes elsewhere, is not in it. n: forward passes. None without any."""
        if not self._passes:
            return []
        sizes = [float(size) for size, _, _ in self._passes]
        waited = [1e3 * size * wall for size, wall, _ in self._passes]
        worked = [1e3 * cpu for _, _, cpu in self._passes]
        return [
            ratio(TASK, "chunk_ms", waited, sizes),
            ratio(TASK, "chunk_cpu_ms", worked, sizes),
        ]
