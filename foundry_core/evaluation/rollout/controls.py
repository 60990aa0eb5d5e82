"""Controls: policies that have learned nothing, to see what an exam gives away.

still  holds the pose that the robot has when the episode begins
drift  commands at every plan the pose it measures then, as a policy does whose relative actions
       are all zero. A robot that lags behind its target moves: in Meta-World the hand sinks by
       5 mm per plan
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from foundry_core.evaluation.benchmarks.base import Benchmark, Observation


class Control:
    """A PolicyProtocol without cameras. execute_steps: default 1, and of `still`, which plans once,
    the longest episode."""

    cameras: Sequence[str] = ()

    def __init__(
        self,
        benchmark: Benchmark,
        kind: Literal["still", "drift"],
        execute_steps: int | None = None,
    ) -> None:
        longest = max(task.max_steps or 1 for task in benchmark.tasks().values())
        self.hz = benchmark.hz
        self.execute_steps = execute_steps or (longest if kind == "still" else 1)
        self._benchmark, self._holds = benchmark, kind == "still"
        self._held: dict[str, Mapping[str, np.ndarray]] = {}

    def reset(self, client: str, seed: int) -> None:
        self._held.pop(client, None)

    def infer(self, requests: Sequence[tuple[str, Observation]]) -> list[dict[str, np.ndarray]]:
        return [self._plan(client, observation) for client, observation in requests]

    def _plan(self, client: str, observation: Observation) -> dict[str, np.ndarray]:
        targets = self._benchmark.still(observation)
        if self._holds:
            targets = self._held.setdefault(client, targets)
        shape = (self.execute_steps, 1)
        return {name: np.tile(target, shape) for name, target in targets.items()}
