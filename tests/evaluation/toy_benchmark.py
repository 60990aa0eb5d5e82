"""A benchmark without a simulator: walk along a line to a goal that the picture shows.

Faults, their scenarios and how often they strike are settings, so rollouts can be tested in
milliseconds and across processes.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from foundry_core.data.contract.fields import FieldContract
from foundry_core.evaluation.benchmarks.base import (
    Benchmark,
    BenchmarkTask,
    Observation,
    Scenario,
)

FIELD = "robot__action__line"
MEASURED = "robot__actual__line"


class Line(Benchmark):
    """faults: scenario → how many attempts break (in the process that plays them). sag: how far
    beyond its target a step ends."""

    name: ClassVar[str] = "line"
    hz: ClassVar[float] = 10.0
    commands: ClassVar[Mapping[str, FieldContract]] = {FIELD: FieldContract(dims=1)}

    faults: dict[int, int] = {}
    kills: tuple[int, ...] = ()
    sag: float = 0.0

    def tasks(self) -> Mapping[str, BenchmarkTask]:
        return {
            name: BenchmarkTask(name=name, instruction=f"go {name}", max_steps=steps)
            for name, steps in (("near", 12), ("far", 30))
        }

    def cameras(self) -> tuple[str, ...]:
        return ("eye",)

    def environment(self, task: str) -> "LineEnvironment":
        return LineEnvironment(self, self.task(task))

    def unseen_environment(self, task: str) -> "LineEnvironment":
        environment = self.environment(task)
        environment.draws = False
        return environment

    def still(self, observation: Observation) -> Mapping[str, np.ndarray]:
        return {FIELD: observation["lowdim"][MEASURED]}


class LineEnvironment:
    opened: ClassVar[int] = 0
    struck: ClassVar[dict[tuple[str, int], int]] = {}

    def __init__(self, benchmark: Line, task: BenchmarkTask) -> None:
        self._benchmark, self._task = benchmark, task
        self.draws = True
        type(self).opened += 1

    def reset(self, scenario: Scenario) -> None:
        rng = np.random.default_rng([scenario.index, len(self._task.name)])
        self._index = scenario.index
        self._goal = float(rng.uniform(2, 6)) * (1 if self._task.name == "near" else 2)
        self._place, self._steps = 0.0, 0
        self.success = False

    def observe(self) -> Observation:
        image = np.full((4, 4, 3), round(self._goal * 10), dtype=np.uint8)
        return Observation(
            images={"eye": image} if self.draws else {},
            lowdim={MEASURED: np.array([self._place])},
            instruction=self._task.instruction,
        )

    def act(self, targets: Mapping[str, np.ndarray]) -> None:
        self._steps += 1
        key = (self._task.name, self._index)
        if self._steps == 2 and self.struck.get(key, 0) < self._benchmark.faults.get(key[1], 0):
            self.struck[key] = self.struck.get(key, 0) + 1
            raise ArithmeticError("the line is broken")
        if self._steps == 2 and self._index in self._benchmark.kills:
            import os

            os._exit(9)
        target = float(targets[FIELD][0])
        if not np.isfinite(target):
            raise ArithmeticError("target is not finite")
        self._place += float(np.clip(target - self._place, -1, 1)) + self._benchmark.sag
        self.success = abs(self._place - self._goal) < 0.3

    def picture(self) -> np.ndarray:
        picture = np.zeros((24, 24, 3), dtype=np.uint8)
        picture[:, : 1 + int(abs(self._place)) % 24] = 200
        return picture

    def close(self) -> None:
        type(self).opened -= 1


class Walker:
    """Walks to the goal that it reads from the picture, with noise from its seed alone."""

    cameras: Sequence[str] = ("eye",)
    hz = 10.0
    horizon = 4

    def __init__(self, execute_steps: int = 2, noise: float = 3.0, speed: float = 1.0) -> None:
        self.execute_steps, self.noise, self.speed = execute_steps, noise, speed
        self.clients: dict[str, list[int]] = {}
        self.batches: list[int] = []
        self.seen: dict[str, list[float]] = {}

    def reset(self, client: str, seed: int) -> None:
        self.clients[client] = [seed, 0]
        self.seen[client] = []

    def infer(self, requests):
        self.batches.append(len(requests))
        return [self._answer(client, observation) for client, observation in requests]

    def _answer(self, client, observation):
        seed, replan = self.clients[client]
        self.clients[client][1] += 1
        here = float(observation["lowdim"][MEASURED][0])
        self.seen[client].append(here)
        goal = float(observation["images"]["eye"][0, 0, 0]) / 10
        goal += float(np.random.default_rng([seed, replan]).normal(0, self.noise))
        steps = here + self.speed * np.sign(goal - here) * np.arange(1, self.horizon + 1)
        return {FIELD: np.clip(steps, min(here, goal), max(here, goal))[:, None]}


BENCHMARK = Line
