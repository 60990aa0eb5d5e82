"""Closed-loop episodes of many scenarios against one batched policy.

The policy runs here, the simulators in env workers. Whatever observations are waiting are answered
in one forward pass. An episode is a pure function of (scenario, its seed, policy), so results do
not depend on how many env workers there are, up to what batch composition does to floating point.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from foundry_core.data.contract.fields import FieldContract
from foundry_core.errors import FoundryError
from foundry_core.evaluation.benchmarks.base import Benchmark, Observation, Scenario
from foundry_core.evaluation.rollout.env_workers import (
    EnvWorkers,
    LocalEnvWorkers,
    RayEnvWorkers,
    Recording,
    StepResult,
)
from foundry_core.evaluation.score import EpisodeResult
from foundry_core.parallel import ray_session

ATTEMPTS = 2
"""A simulator's fault is tried once more on the same scenario, then recorded as crashed."""


class PolicyProtocol(Protocol):
    """What a rollout asks of a policy. An attribute `history` says how many past observations are
    wanted, by default none. hz: None of a stand-in that acts at any rate.

    reset: forgets the client; its noise is a function of (seed, replan index) from here on.
    infer: absolute targets, action field → float64 [K, D], one entry per request, one forward
        pass for all of them.
    """

    @property
    def execute_steps(self) -> int: ...

    @property
    def cameras(self) -> Sequence[str]: ...

    @property
    def hz(self) -> float | None: ...

    def reset(self, client: str, seed: int) -> None: ...

    def infer(
        self, requests: Sequence[tuple[str, Observation]]
    ) -> Sequence[Mapping[str, np.ndarray]]: ...


@dataclass(frozen=True, kw_only=True)
class EpisodePlan:
    """seed: the policy's, uint32. recording: what is kept of the episode to look at."""

    scenario: Scenario
    seed: int
    recording: Recording = "no"
    attempt: int = 0

    @property
    def key(self) -> tuple[str, int]:
        """(task, scenario), as of its result."""
        return self.scenario.task.name, self.scenario.index

    @property
    def client(self) -> str:
        return f"{self.scenario.task.name}/{self.scenario.index}/{self.attempt}"

    def result(self, **outcome: Any) -> EpisodeResult:
        task, scenario = self.key
        return EpisodeResult(task=task, scenario=scenario, seed=self.seed, **outcome)


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """A finished episode; filmstrip (PNG), video (MP4) and track (NPZ) if it was recorded."""

    result: EpisodeResult
    filmstrip: bytes | None = None
    video: bytes | None = None
    track: bytes | None = None


def plan_episodes(
    benchmark: Benchmark,
    tasks: Iterable[str],
    *,
    first: int,
    count: int,
    seed: int,
    record: int = 0,
    record_failures: bool = False,
) -> list[EpisodePlan]:
    """`count` scenarios from `first` on for each task, in that order; the first `record` of each
    task keep pictures. record_failures: of the others those that fail keep their video."""
    others: Recording = "failed" if record_failures else "no"
    tasks = tuple(tasks)
    benchmark.check_scenarios(first, count, tasks)
    plans = []
    for task in tasks:
        for index in range(first, first + count):
            words = np.random.SeedSequence([seed, *task.encode(), index])
            plans.append(
                EpisodePlan(
                    scenario=benchmark.scenario(task, index),
                    seed=int(words.generate_state(1)[0]),
                    recording="yes" if index < first + record else others,
                )
            )
    return plans


def run_episodes(
    benchmark: Benchmark,
    policy: PolicyProtocol,
    plans: Sequence[EpisodePlan],
    *,
    processes: int = 1,
    env_workers: int | None = None,
    execute_steps: int | None = None,
    on_rollout: Callable[[Rollout], None] = lambda rollout: None,
) -> list[EpisodeResult]:
    """Plays all plans; results in the order of the plans, `on_rollout` in the order of finishing.

    processes: to simulate in (1: this one). env_workers: episodes at a time, default one per
    process; more make larger batches. execute_steps: targets carried out before asking again,
    default the policy's own. Errors of the policy are raised: they are no simulator's fault.
    """
    execute = _check_policy(benchmark, policy, execute_steps)
    if not plans:
        return []
    count = max(1, min(env_workers or processes, len(plans)))
    history, sees = int(getattr(policy, "history", 0)), bool(policy.cameras)
    finished = {}
    with ExitStack() as stack:
        workers: EnvWorkers
        if processes > 1:
            stack.enter_context(ray_session(processes))
            workers = RayEnvWorkers(benchmark, history, sees, count, min(processes, count))
        else:
            workers = LocalEnvWorkers(benchmark, history, sees, count)
        stack.callback(workers.close)
        for rollout in _play(workers, policy, plans, execute, benchmark.hz, benchmark.commands):
            finished[rollout.result.key] = rollout.result
            on_rollout(rollout)
    return [finished[plan.key] for plan in plans]


def _play(
    workers: EnvWorkers,
    policy: PolicyProtocol,
    plans: Sequence[EpisodePlan],
    execute: int,
    hz: float,
    commands: Mapping[str, FieldContract],
) -> Iterator[Rollout]:
    waiting = _Waiting(plans)
    playing: dict[int, EpisodePlan] = {}
    wrongs: dict[int, str] = {}

    def start(worker: int, plan: EpisodePlan) -> None:
        playing[worker] = plan
        policy.reset(plan.client, plan.seed)
        workers.submit(worker, "start", plan.scenario, plan.recording)

    for worker in range(workers.count):
        if waiting:
            start(worker, waiting.take(worker))
    while playing:
        wanting: list[tuple[int, Observation]] = []
        for worker, result in workers.ready():
            plan = playing[worker]
            if result.fault is None and result.observation is not None:
                wanting.append((worker, result.observation))
                continue
            if result.fault is not None and plan.attempt + 1 < ATTEMPTS:
                start(worker, replace(plan, attempt=plan.attempt + 1))
                continue
            yield _rollout(plan, result, hz, wrongs.pop(worker, ""))
            del playing[worker]
            if waiting:
                start(worker, waiting.take(worker))
        if wanting:
            requests = [(playing[worker].client, observation) for worker, observation in wanting]
            answers = policy.infer(requests)
            for (worker, _), answer in zip(wanting, answers, strict=True):
                targets = _first_targets(answer, execute)
                wrong = _out_of_contract(targets, commands)
                if not wrong:
                    workers.submit(worker, "step", targets)
                    continue
                # The policy's failure, not the simulator's: it counts.
                wrongs[worker] = wrong
                workers.submit(worker, "give_up")


class _Waiting:
    """Episodes that have not begun. A worker keeps to its task as long as there is one of it: each
    new task costs it a simulator, half a second and 100 MB. After that it goes where most wait for
    each worker that is there already."""

    def __init__(self, plans: Iterable[EpisodePlan]) -> None:
        self._by_task: dict[str, deque[EpisodePlan]] = {}
        for plan in plans:
            self._by_task.setdefault(plan.key[0], deque()).append(plan)
        self._task_of: dict[int, str] = {}

    def __bool__(self) -> bool:
        return any(self._by_task.values())

    def take(self, worker: int) -> EpisodePlan:
        """Its next episode; there must be one."""
        task = self._task_of.pop(worker, "")
        if not self._by_task.get(task):
            there = Counter(self._task_of.values())
            waiting = {one: len(plans) for one, plans in self._by_task.items() if plans}
            task = max(waiting, key=lambda one: waiting[one] / (there[one] + 1))
        self._task_of[worker] = task
        return self._by_task[task].popleft()


def _rollout(plan: EpisodePlan, last: StepResult, hz: float, wrong: str = "") -> Rollout:
    """wrong: what the policy commanded that cannot be carried out."""
    result = plan.result(
        success=None if last.fault is not None else last.success,
        seconds=last.steps / hz,
        steps=last.steps,
        failure_message=last.fault or wrong or None,
    )
    return Rollout(result=result, filmstrip=last.filmstrip, video=last.video, track=last.track)


def _first_targets(answer: Mapping[str, np.ndarray], execute: int) -> list[dict[str, np.ndarray]]:
    """[{field: [D]}] of the first `execute` predicted steps."""
    horizon = {name: len(values) for name, values in answer.items()}
    if not horizon or min(horizon.values()) < execute:
        raise FoundryError(
            f"the policy predicts {horizon} steps, {execute} are to be executed",
            "lower execute_steps to the policy's horizon",
        )
    return [{name: values[step] for name, values in answer.items()} for step in range(execute)]


def _out_of_contract(
    targets: Sequence[Mapping[str, np.ndarray]], commands: Mapping[str, FieldContract]
) -> str:
    """What is wrong with the first bad target of a policy; '' when all can be carried out."""
    for step, target in enumerate(targets):
        missing = sorted(commands.keys() - target.keys())
        if missing:
            return f"the policy commands no {', '.join(missing)}"
        for name, value in target.items():
            size = commands[name].dims if name in commands else 0
            if np.ndim(value) != 1 or (size and len(value) != size):
                wanted = size or "D"
                return f"target {name!r} of step {step} has shape {np.shape(value)}, not [{wanted}]"
            if not np.isfinite(value).all():
                return f"target {name!r} of step {step} is not finite"
    return ""


def _check_policy(benchmark: Benchmark, policy: PolicyProtocol, execute_steps: int | None) -> int:
    """The number of steps to execute; FoundryError where policy and benchmark do not fit."""
    missing = sorted(set(policy.cameras) - set(benchmark.cameras()))
    if missing:
        raise FoundryError(
            f"the policy looks through {missing}; {benchmark.name} shows {benchmark.cameras()}",
            "add the cameras to the evaluation's options, or evaluate another policy",
        )
    if policy.hz is not None and abs(policy.hz - benchmark.hz) > 1e-9:
        raise FoundryError(
            f"the policy acts at {policy.hz:g} Hz, {benchmark.name} is controlled at "
            f"{benchmark.hz:g} Hz",
            "train on data of the benchmark's rate",
        )
    execute = policy.execute_steps if execute_steps is None else execute_steps
    if execute < 1:
        raise FoundryError(f"execute_steps is {execute}, must be at least 1")
    return execute
