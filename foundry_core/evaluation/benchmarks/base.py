"""What a benchmark is: named tasks, seeded scenarios, and an environment that plays them.

A benchmark is one module of this package that defines BENCHMARK, a `Benchmark` subclass; nothing
else knows its name. The module imports quickly (its tasks are read while planning); simulators are
imported by `environment`. A benchmark whose simulator runs elsewhere and asks for actions itself
fits too: `observe` waits for its next request and `act` answers it.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NotRequired, Protocol, TypedDict

from foundry_core.config.suggest import nearest
from foundry_core.config.validation import validate
from foundry_core.errors import FoundryError
from foundry_core.pipeline.stage import Config


@dataclass(frozen=True, kw_only=True)
class BenchmarkTask:
    """max_steps: control steps after which an episode without success is a failure."""

    name: str
    instruction: str
    max_steps: int


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Where an episode starts: a pure function of (task, index)."""

    task: BenchmarkTask
    index: int


class Observation(TypedDict):
    """images: camera → uint8 [H, W, 3]; lowdim: measured field → float64 [D]. history: the
    observations of the steps before, oldest first, where the policy asks for them; fewer at an
    episode's start."""

    images: Mapping[str, Any]
    lowdim: Mapping[str, Any]
    instruction: str
    history: NotRequired[list["Observation"]]


class Environment(Protocol):
    """One simulator playing one episode at a time. Faults are raised, whatever their type."""

    def reset(self, scenario: Scenario) -> None: ...

    def observe(self) -> Observation: ...

    def act(self, targets: Mapping[str, Any]) -> None:
        """One control step towards absolute targets: action field → float64 [D]."""

    @property
    def success(self) -> bool:
        """Whether the task was solved at any time since the reset."""

    def picture(self) -> Any:
        """uint8 [H, W, 3] of the scene for people; drawing it changes nothing."""

    def close(self) -> None: ...


class Benchmark(Config):
    """A benchmark's settings (its fields: everything that can change an outcome) and its parts.

    packages: installed distributions that the outcomes depend on; part of an evaluation's identity.
    """

    name: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()
    hz: ClassVar[float]

    def tasks(self) -> Mapping[str, BenchmarkTask]:
        raise NotImplementedError

    def cameras(self) -> tuple[str, ...]:
        raise NotImplementedError

    def default_tasks(self) -> tuple[str, ...]:
        return tuple(self.tasks())

    def environment(self, task: str) -> Environment:
        raise NotImplementedError

    def check_scenarios(self, first: int, count: int) -> None:
        """FoundryError unless scenarios first .. first + count - 1 exist for evaluation."""
        if first < 0:
            raise FoundryError(f"{self.name}: scenario {first} is negative")

    def check_training(self, kind: str, recipe: Any) -> None:
        """Called for every stage upstream of the policy: FoundryError where the policy was
        trained on something this benchmark does not show."""

    def task(self, name: str) -> BenchmarkTask:
        tasks = self.tasks()
        if name not in tasks:
            raise FoundryError(f"{self.name} has no task {name!r}", nearest(name, tasks))
        return tasks[name]

    def scenario(self, task: str, index: int) -> Scenario:
        return Scenario(task=self.task(task), index=index)


def benchmark_names() -> list[str]:
    found = pkgutil.iter_modules([str(Path(__file__).parent)])
    return sorted(module.name for module in found if module.name != "base")


def benchmark_module(name: str) -> str:
    """The dotted module of a benchmark; FoundryError with the nearest name otherwise."""
    if name not in benchmark_names():
        raise FoundryError(f"unknown benchmark {name!r}", nearest(name, benchmark_names()))
    return f"{__package__}.{name}"


def load_benchmark(name: str, options: Mapping[str, Any] | None = None) -> Benchmark:
    """The benchmark with these settings; FoundryError names the setting that is wrong."""
    kind: type[Benchmark] = importlib.import_module(benchmark_module(name)).BENCHMARK
    return validate(kind, options, f"benchmark {name!r}")
