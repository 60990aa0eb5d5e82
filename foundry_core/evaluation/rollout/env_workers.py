"""Lanes: places where one episode at a time is simulated, in this process or in Ray actors.

A lane owns its simulators and is told two things: start an episode, or carry out targets until the
policy is wanted again. It never raises: whatever goes wrong inside is a fault with its traceback.
"""

import traceback
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from foundry_core.evaluation.benchmarks.base import Benchmark, Environment, Observation, Scenario
from foundry_core.evaluation.rollout.video import animation, strip

_KEPT_ENVIRONMENTS = 2
"""Episodes come task after task, so a lane seldom goes back; each one costs 100 MB."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What a lane answers: an observation when the policy is wanted, else how the episode ended.

    fault: traceback of a simulator's failure, None if all went well. strip, animation: encoded
    pictures of a recorded episode, at its end.
    """

    observation: Observation | None = None
    success: bool = False
    steps: int = 0
    fault: str | None = None
    strip: bytes | None = None
    animation: bytes | None = None


class Player:
    """The lane's work, the same in any process.

    history: how many observations before the present one the policy wants.
    """

    def __init__(self, benchmark: Benchmark, history: int) -> None:
        self._benchmark = benchmark
        self._history = history
        self._environments: OrderedDict[str, Environment] = OrderedDict()
        self._scenario: Scenario | None = None
        self._steps = 0
        self._film: list[Any] | None = None
        self._past: list[Observation] = []

    def start(self, scenario: Scenario, record: bool) -> Turn:
        try:
            self._scenario, self._steps, self._past = scenario, 0, []
            environment = self._environment()
            environment.reset(scenario)
            self._film = [environment.picture()] if record else None
            return self._turn(environment)
        except Exception:
            return self._fault()

    def advance(self, targets: list[Mapping[str, Any]]) -> Turn:
        """Commands `targets` one after the other; stops early at success or the step limit."""
        try:
            environment = self._environment()
            for left in range(len(targets) - 1, -1, -1):
                environment.act(targets[len(targets) - 1 - left])
                self._steps += 1
                if self._film is not None:
                    self._film.append(environment.picture())
                if environment.success or self._steps >= self._limit:
                    break
                if 0 < left <= self._history:
                    self._past.append(environment.observe())
            return self._turn(environment)
        except Exception:
            return self._fault()

    @property
    def _limit(self) -> int:
        return self._scenario.task.max_steps

    def _environment(self) -> Environment:
        task = self._scenario.task.name
        if task not in self._environments:
            while len(self._environments) >= _KEPT_ENVIRONMENTS:
                self._environments.popitem(last=False)[1].close()
            self._environments[task] = self._benchmark.environment(task)
        return self._environments[task]

    def _turn(self, environment: Environment) -> Turn:
        if environment.success or self._steps >= self._limit:
            return Turn(success=bool(environment.success), steps=self._steps, **self._pictures())
        observation = environment.observe()
        if self._history:
            observation = Observation(**observation, history=self._past[-self._history :])
            self._past = [*observation["history"], Observation(**{**observation, "history": []})]
        return Turn(observation=observation, steps=self._steps)

    def _pictures(self) -> dict[str, bytes]:
        if self._film is None:
            return {}
        film, self._film = self._film, None
        return {"strip": strip(film), "animation": animation(film, self._benchmark.hz)}

    def _fault(self) -> Turn:
        """The broken simulator is thrown away: a retry gets a fresh one."""
        report = traceback.format_exc()
        broken = self._environments.pop(self._scenario.task.name, None)
        if broken is not None:
            try:
                broken.close()
            except Exception:
                report += f"\nand while closing it:\n{traceback.format_exc()}"
        return Turn(steps=self._steps, fault=report)


class Lanes(Protocol):
    """`count` lanes; one call per lane at a time."""

    count: int

    def submit(self, lane: int, method: str, *arguments: Any) -> None: ...

    def ready(self) -> list[tuple[int, Turn]]:
        """Blocks until at least one submitted call is answered; returns all answers there are."""

    def close(self) -> None: ...


class LocalLanes:
    """Lanes in this process, played one after the other: batches, but no parallelism."""

    def __init__(self, benchmark: Benchmark, history: int, count: int) -> None:
        self.count = count
        self._players = [Player(benchmark, history) for _ in range(count)]
        self._calls: list[tuple[int, str, tuple]] = []

    def submit(self, lane: int, method: str, *arguments: Any) -> None:
        self._calls.append((lane, method, arguments))

    def ready(self) -> list[tuple[int, Turn]]:
        calls, self._calls = self._calls, []
        return [(lane, getattr(self._players[lane], method)(*args)) for lane, method, args in calls]

    def close(self) -> None:
        for player in self._players:
            for environment in player._environments.values():
                environment.close()


class RayLanes:
    """Lanes in Ray actors, `cpus` cores shared among them. An actor that dies (out of memory, a
    driver's crash) is a fault of its episode and is replaced. Needs an open `ray_session`."""

    def __init__(self, benchmark: Benchmark, history: int, count: int, cpus: int) -> None:
        import ray

        self.count = count
        self._ray = ray
        self._actor = ray.remote(num_cpus=cpus / count)(Player)
        self._arguments = (benchmark, history)
        self._actors = [self._new() for _ in range(count)]
        self._waiting: dict[Any, int] = {}

    def submit(self, lane: int, method: str, *arguments: Any) -> None:
        reference = getattr(self._actors[lane], method).remote(*arguments)
        self._waiting[reference] = lane

    def ready(self) -> list[tuple[int, Turn]]:
        references = list(self._waiting)
        self._ray.wait(references, num_returns=1)
        done, _ = self._ray.wait(references, num_returns=len(references), timeout=0)
        return [self._answer(reference) for reference in done]

    def close(self) -> None:
        for actor in self._actors:
            self._ray.kill(actor)

    def _new(self) -> Any:
        return self._actor.remote(*self._arguments)

    def _answer(self, reference: Any) -> tuple[int, Turn]:
        lane = self._waiting.pop(reference)
        try:
            return lane, self._ray.get(reference)
        except self._ray.exceptions.RayError:
            report = traceback.format_exc()
            self._ray.kill(self._actors[lane])
            self._actors[lane] = self._new()
            return lane, Turn(fault=report)
