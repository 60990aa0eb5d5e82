"""What a benchmark is: named tasks, seeded scenarios, and an environment that plays them.

A benchmark is one module, of this package or of any installed distribution, that defines
`BENCHMARK`, a `Benchmark` subclass. The module imports quickly (its tasks are read while planning);
simulators are imported by `environment`. A benchmark whose simulator runs elsewhere and asks for
actions itself fits too: `observe` waits for its next request and `act` answers it.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, NotRequired, Protocol, TypedDict

from pydantic import Field

from foundry_core.config.registry import Registry
from foundry_core.config.suggest import nearest
from foundry_core.config.validation import validate
from foundry_core.data.contract.fields import FieldContract
from foundry_core.data.contract.statements import CameraContract, ExamContract
from foundry_core.errors import FoundryError
from foundry_core.evaluation.success import SuccessRule
from foundry_core.identity.sources import package_fingerprint
from foundry_core.pipeline.stage import Config


@dataclass(frozen=True, kw_only=True)
class BenchmarkTask:
    """max_steps: control steps after which an episode without success is a failure; None where the
    benchmark's own program sees to it. given_away: how far what learned nothing solves it, in
    words; "" where that is next to nothing, or was not looked at."""

    name: str
    instruction: str
    max_steps: int | None
    given_away: str = ""


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
    """One simulator playing one episode at a time. Faults are raised, whatever their type.

    One whose cameras are dear to draw may have `measured()` beside: the `lowdim` of `observe`
    alone, which is asked for at each step of an episode that is recorded.
    """

    def reset(self, scenario: Scenario) -> None:
        """Begins an episode: the same whatever was played before."""

    def observe(self) -> Observation:
        """What the policy is shown now; asking twice changes nothing."""

    def act(self, targets: Mapping[str, Any]) -> None:
        """One control step towards absolute targets: action field → float64 [D]."""

    @property
    def success(self) -> bool:
        """Whether the task is solved now; for a benchmark whose `success` is "ever" it may also say
        whether it was at any time since the reset."""

    def picture(self) -> Any:
        """uint8 [H, W, 3] of the scene for people; drawing it changes nothing."""

    def close(self) -> None: ...


class Benchmark(Config):
    """A benchmark's settings (its fields: everything that can change an outcome) and its parts.

    name: what messages call it. hz: control steps per second. packages: installed distributions
    that the outcomes depend on; part of an evaluation's identity. observes: what its observations
    measure. commands: the targets that `act` needs: a policy that commands something else has
    failed. Either may be empty: then nothing is known of it, and whatever comes is passed on.
    success: when an episode counts as solved; the rollout sees to it.
    """

    name: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()
    hz: ClassVar[float]
    observes: ClassVar[Mapping[str, FieldContract]] = {}
    commands: ClassVar[Mapping[str, FieldContract]] = {}

    success: SuccessRule = Field(
        "ever",
        description="ever: solved at any time; final: after the last step; {held: k}: for k steps "
        "on end",
    )

    @abstractmethod
    def tasks(self) -> Mapping[str, BenchmarkTask]:
        """Every task by name."""

    @abstractmethod
    def cameras(self) -> tuple[str, ...]:
        """The keys of an observation's images."""

    @abstractmethod
    def environment(self, task: str) -> Environment:
        """A simulator of the task; imports what it needs."""

    def unseen_environment(self, task: str) -> Environment:
        """For a policy without cameras: `observe` need not draw. Here: an ordinary one."""
        return self.environment(task)

    def still(self, observation: Observation) -> Mapping[str, Any]:
        """Targets for `act` that keep the robot where it is observed to be, for controls that
        learned nothing."""
        raise NotImplementedError(f"{self.name} does not define `still`")

    def default_tasks(self) -> tuple[str, ...]:
        """What an evaluation that names no tasks runs."""
        return tuple(self.tasks())

    def fingerprints(self) -> Mapping[str, str]:
        """What is installed that the outcomes depend on: name → digest. FoundryError where it is
        missing. Cheap: planning asks."""
        return {name: package_fingerprint(name) for name in self.packages}

    def versions(self) -> Mapping[str, str]:
        """The same by version, for people."""
        return {name: version(name) for name in self.packages}

    def check_scenarios(self, first: int, count: int, tasks: Sequence[str] = ()) -> None:
        """FoundryError unless scenarios first .. first + count - 1 exist for evaluation, of every
        one of the tasks."""
        if first < 0:
            raise FoundryError(f"{self.name}: scenario {first} is negative")

    def pictures(self) -> Mapping[str, CameraContract]:
        """What each camera's images are."""
        return dict.fromkeys(self.cameras(), CameraContract())

    def contract(self) -> ExamContract:
        """This side of what a policy must fit (foundry_core/data/contract)."""
        return ExamContract(
            hz=self.hz, cameras=self.pictures(), observes=self.observes, commands=self.commands
        )

    def task(self, name: str) -> BenchmarkTask:
        """The task; FoundryError with the nearest name otherwise."""
        tasks = self.tasks()
        if name not in tasks:
            raise FoundryError(f"{self.name} has no task {name!r}", nearest(name, tasks))
        return tasks[name]

    def scenario(self, task: str, index: int) -> Scenario:
        return Scenario(task=self.task(task), index=index)


class DrivenBenchmark(Benchmark):
    """A benchmark whose own program plays the episodes and asks for actions over a protocol: it has
    no environments here, `drive` starts the program and follows it."""

    @abstractmethod
    def drive(
        self,
        policy: Any,
        plans: Sequence[Any],
        *,
        seed: int,
        processes: int,
        execute_steps: int | None,
        scratch: Path,
        on_rollout: Callable[[Any], None],
    ) -> None:
        """Plays all plans (rollout/episodes.EpisodePlan) against the policy, a ServedPolicy in its
        own meanings; `on_rollout` is told each finished episode once. seed: of the policy's noise.
        scratch: what an earlier call left there is not played again."""

    def environment(self, task: str) -> Environment:
        raise FoundryError(
            f"{self.name} plays its episodes in a program of its own",
            "it has no environments to record or to look into",
        )


BENCHMARKS: Registry[type[Benchmark]] = Registry(
    group="foundry.benchmarks",
    package=__package__,
    attribute="BENCHMARK",
    noun="benchmark",
)


def load_benchmark(name: str, options: Mapping[str, Any] | None = None) -> Benchmark:
    """The benchmark with these settings. FoundryError names the setting that is wrong, or what the
    benchmark's class does not define."""
    kind = BENCHMARKS.get(name)
    attributes = [one for one in ("name", "hz") if not hasattr(kind, one)]
    missing = [*attributes, *sorted(kind.__abstractmethods__)]
    if missing:
        raise FoundryError(
            f"benchmark {name!r}: {kind.__name__} does not define {', '.join(missing)}",
            "every Benchmark defines name, hz, tasks, cameras and environment",
        )
    benchmark: Benchmark = validate(kind, options, f"benchmark {name!r}")
    return benchmark
