"""Env workers: each simulates one episode at a time, in this process or in a Ray actor.

A worker owns its simulators and does two things: it starts an episode, and it carries out targets
until the policy is wanted again. It never raises: whatever goes wrong inside is a fault with its
traceback.
"""

import traceback
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from foundry_core.evaluation.benchmarks.base import Benchmark, Environment, Observation, Scenario
from foundry_core.evaluation.rollout.video import encode_filmstrip, encode_track, encode_video
from foundry_core.evaluation.success import Judge

Recording = Literal["no", "failed", "yes"]
"""Of an episode: whether pictures of it are kept; "failed": its video, where it fails."""
_KEPT_ENVIRONMENTS = 2
"""Episodes come task after task, so a worker seldom goes back; each one costs 100 MB."""


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What a worker answers: an observation when the policy is wanted, else how the episode ended.

    fault: traceback of a simulator's failure, None if all went well. filmstrip (PNG), video (MP4),
    track (NPZ): of a recorded episode, at its end.
    """

    observation: Observation | None = None
    success: bool = False
    steps: int = 0
    fault: str | None = None
    filmstrip: bytes | None = None
    video: bytes | None = None
    track: bytes | None = None


class EnvWorker:
    """The work itself, the same in any process.

    history: how many observations before the present one the policy wants. sees: whether it looks
    through any camera.
    """

    def __init__(self, benchmark: Benchmark, history: int, sees: bool) -> None:
        self._new = benchmark.environment if sees else benchmark.unseen_environment
        self._benchmark = benchmark
        self._history = history
        self._environments: OrderedDict[str, Environment] = OrderedDict()
        self._steps = 0
        self._recording: Recording = "no"
        self._frames: list[Any] = []
        self._track: list[tuple[Mapping[str, Any], Mapping[str, Any]]] = []
        self._past: list[Observation] = []

    def start(self, scenario: Scenario, recording: Recording) -> StepResult:
        """Begins an episode."""
        self._recording, self._frames, self._track = recording, [], []
        self._scenario, self._steps, self._past = scenario, 0, []
        try:
            environment = self._environment()
            environment.reset(scenario)
            self._judge = Judge(self._benchmark.success, environment.success)
            if recording != "no":
                self._frames.append(environment.picture())
            return self._result(environment)
        except Exception:
            return self._fault()

    def step(self, targets: list[Mapping[str, Any]]) -> StepResult:
        """Commands `targets` one after the other; stops early where the episode ends."""
        try:
            environment = self._environment()
            for left in range(len(targets) - 1, -1, -1):
                target = targets[len(targets) - 1 - left]
                if self._recording != "no":
                    self._track.append((_measured(environment), target))
                environment.act(target)
                self._steps += 1
                self._judge.step(environment.success)
                if self._recording != "no":
                    self._frames.append(environment.picture())
                if self._over:
                    break
                if 0 < left <= self._history:
                    self._past.append(environment.observe())
            return self._result(environment)
        except Exception:
            return self._fault()

    def give_up(self) -> StepResult:
        """Ends the episode where it is: a failure, with its pictures."""
        return self._ended(success=False)

    def close(self) -> None:
        for environment in self._environments.values():
            environment.close()

    @property
    def _over(self) -> bool:
        limit = self._scenario.task.max_steps
        return self._judge.decided or (limit is not None and self._steps >= limit)

    def _environment(self) -> Environment:
        task = self._scenario.task.name
        if task not in self._environments:
            while len(self._environments) >= _KEPT_ENVIRONMENTS:
                self._environments.popitem(last=False)[1].close()
            self._environments[task] = self._new(task)
        return self._environments[task]

    def _result(self, environment: Environment) -> StepResult:
        if self._over:
            return self._ended(self._judge.success)
        observation = environment.observe()
        if self._history:
            past = self._past[-self._history :]
            observation = Observation(**{**observation, "history": past})
            self._past = [*past, Observation(**{**observation, "history": []})]
        return StepResult(observation=observation, steps=self._steps)

    def _ended(self, success: bool) -> StepResult:
        kept: dict[str, Any] = {}
        frames = self._frames
        if self._recording == "yes":
            kept["filmstrip"] = encode_filmstrip(frames)
        if self._recording == "yes" or (self._recording == "failed" and not success):
            kept["video"] = encode_video(frames, self._benchmark.hz)
            kept["track"] = encode_track(self._track)
        self._frames, self._track = [], []
        return StepResult(success=success, steps=self._steps, **kept)

    def _fault(self) -> StepResult:
        """The broken simulator is thrown away: a retry gets a fresh one."""
        report = traceback.format_exc()
        broken = self._environments.pop(self._scenario.task.name, None)
        if broken is not None:
            try:
                broken.close()
            except Exception:
                report += f"\nand while closing it:\n{traceback.format_exc()}"
        return StepResult(steps=self._steps, fault=report)


class LocalEnvWorkers:
    """`count` workers in this process, one after the other: batches, but no parallelism."""

    def __init__(self, benchmark: Benchmark, history: int, sees: bool, count: int) -> None:
        self.count = count
        self._workers = [EnvWorker(benchmark, history, sees) for _ in range(count)]
        self._calls: list[tuple[int, str, tuple[Any, ...]]] = []

    def submit(self, worker: int, method: str, *arguments: Any) -> None:
        """Calls a method of an `EnvWorker`, one at a time; `ready` returns its answer."""
        self._calls.append((worker, method, arguments))

    def ready(self) -> list[tuple[int, StepResult]]:
        """Blocks until at least one submitted call is answered; returns all answers there are."""
        calls, self._calls = self._calls, []
        return [(at, getattr(self._workers[at], method)(*args)) for at, method, args in calls]

    def close(self) -> None:
        for worker in self._workers:
            worker.close()


class RayEnvWorkers:
    """The same in Ray actors, `cpus` cores shared among them. An actor that dies (out of memory, a
    driver's crash) is a fault of its episode and is replaced. Needs an open `ray_session`."""

    def __init__(
        self, benchmark: Benchmark, history: int, sees: bool, count: int, cpus: int
    ) -> None:
        import ray

        self.count = count
        self._ray = ray
        self._actor = ray.remote(num_cpus=cpus / count)(EnvWorker)
        self._arguments = (benchmark, history, sees)
        self._actors = [self._new() for _ in range(count)]
        self._waiting: dict[Any, int] = {}

    def submit(self, worker: int, method: str, *arguments: Any) -> None:
        reference = getattr(self._actors[worker], method).remote(*arguments)
        self._waiting[reference] = worker

    def ready(self) -> list[tuple[int, StepResult]]:
        references = list(self._waiting)
        self._ray.wait(references, num_returns=1)
        done, _ = self._ray.wait(references, num_returns=len(references), timeout=0)
        return [self._answer(reference) for reference in done]

    def close(self) -> None:
        for actor in self._actors:
            self._ray.kill(actor)

    def _new(self) -> Any:
        return self._actor.remote(*self._arguments)

    def _answer(self, reference: Any) -> tuple[int, StepResult]:
        worker = self._waiting.pop(reference)
        try:
            return worker, self._ray.get(reference)
        except self._ray.exceptions.RayError:
            report = traceback.format_exc()
            self._ray.kill(self._actors[worker])
            self._actors[worker] = self._new()
            return worker, StepResult(fault=report)


EnvWorkers = LocalEnvWorkers | RayEnvWorkers


def _measured(environment: Environment) -> Mapping[str, Any]:
    """What is measured now, without drawing where the environment can tell it so."""
    measured = getattr(environment, "measured", None)
    found: Mapping[str, Any] = environment.observe()["lowdim"] if measured is None else measured()
    return found
