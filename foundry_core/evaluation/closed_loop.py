"""What the stages that evaluate share: which scenarios they meet, how they play them, what they
leave. Planning imports this: what simulates or counts is imported where it is used."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from pydantic import Field, model_validator

from foundry_core.evaluation.benchmarks.base import (
    BENCHMARKS,
    Benchmark,
    DrivenBenchmark,
    load_benchmark,
)
from foundry_core.identity.code import fingerprint
from foundry_core.pipeline import stage

if TYPE_CHECKING:
    from foundry_core.evaluation.design import Design
    from foundry_core.evaluation.rollout.episodes import PolicyProtocol
    from foundry_core.evaluation.score import EpisodeResult


_SCENARIOS = ("benchmark", "tasks", "episodes_per_task", "budget", "first_scenario")


class ScenariosRecipe(stage.Recipe):
    """Scenario indices are the benchmark's, not the seed's: evaluations that share
    `first_scenario` meet the same scenarios, which is what pairs them in a comparison."""

    benchmark: str = Field("metaworld", description="name of the benchmark")
    options: dict[str, Any] = Field(
        default_factory=dict, description="settings of the benchmark, such as render"
    )
    tasks: tuple[str, ...] = Field((), description="empty: the benchmark's default tasks")
    episodes_per_task: int = Field(25, ge=1, description="scenarios of each task that are played")
    budget: int | None = Field(
        None, description="episodes per task fixed for good; default: episodes_per_task"
    )
    first_scenario: int = Field(
        0,
        ge=0,
        description="index of the first one; evaluations that share it meet the same scenarios",
    )

    @model_validator(mode="after")
    def _budget_holds(self) -> Self:
        if self.budget is not None and self.budget < self.episodes_per_task:
            raise ValueError(
                f"episodes_per_task {self.episodes_per_task} exceeds the budget {self.budget}"
            )
        return self


def scenarios_of(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Of an evaluation's recipe as JSON: which scenarios are met, how many were planned before the
    first one, and when one counts as solved. Nothing of an imported one: its file says that."""
    asked = {name: recipe[name] for name in _SCENARIOS if name in recipe}
    if not asked:
        return {}
    return asked | {"success": recipe.get("options", {}).get("success", "ever")}


def benchmark_of(recipe: ScenariosRecipe) -> Benchmark:
    return load_benchmark(recipe.benchmark, recipe.options)


def benchmark_sources(recipe: ScenariosRecipe) -> Mapping[str, str]:
    """The benchmark is loaded by name, so its code enters the identity here."""
    code = fingerprint(BENCHMARKS.module(recipe.benchmark), "BENCHMARK").digest
    return {f"benchmark:{recipe.benchmark}": code, **benchmark_of(recipe).fingerprints()}


def checked_benchmark(recipe: ScenariosRecipe) -> Benchmark:
    """The recipe's benchmark; FoundryError unless it has all scenarios that are asked for."""
    benchmark = benchmark_of(recipe)
    benchmark.check_scenarios(recipe.first_scenario, recipe.episodes_per_task, recipe.tasks)
    for task in recipe.tasks:
        benchmark.task(task)
    return benchmark


def given_away(recipe: ScenariosRecipe) -> list[str]:
    """A line for each of its tasks that what learned nothing solves."""
    benchmark = benchmark_of(recipe)
    tasks = [benchmark.task(name) for name in recipe.tasks or benchmark.default_tasks()]
    return [f"{task.name} says little: {task.given_away}" for task in tasks if task.given_away]


def episodes_work(recipe: ScenariosRecipe) -> stage.Work:
    """The episodes that it plays."""
    tasks = len(recipe.tasks or benchmark_of(recipe).default_tasks())
    return stage.Work(unit="episodes", amount=tasks * recipe.episodes_per_task)


def play(
    ctx: stage.StageContext,
    policy: "PolicyProtocol",
    facts: Mapping[str, Any],
    *,
    record: int = 0,
    record_failures: bool = False,
    env_workers: int | None = None,
    execute_steps: int | None = None,
    design: "Design | None" = None,
    attribution: int = 0,
) -> dict[str, Any]:
    """Plays the scenarios of the stage's recipe, a ScenariosRecipe, and writes its Evaluation;
    returns the metrics. What an attempt before this one finished is not played again.

    facts: what evaluation.json says of the policy. record: episodes per task that keep pictures;
    record_failures: every other one that fails keeps its video.
    design: how it may be judged before its end. attribution: so many successes and failures are
    played again for what their chunks depend on.
    """
    from foundry_core.evaluation.quality import write_measures
    from foundry_core.evaluation.rollout.chunk_time import TimedPolicy
    from foundry_core.evaluation.rollout.episodes import Rollout, plan_episodes, run_episodes
    from foundry_core.evaluation.rollout.tally import Tally

    recipe: ScenariosRecipe = ctx.recipe
    benchmark = benchmark_of(recipe)
    plans = plan_episodes(
        benchmark,
        recipe.tasks or benchmark.default_tasks(),
        first=recipe.first_scenario,
        count=recipe.episodes_per_task,
        seed=ctx.seed,
        record=record,
        record_failures=record_failures,
    )
    tally = Tally(
        ctx.out,
        ctx.scratch,
        plans,
        requested=recipe.episodes_per_task,
        budget=recipe.budget or recipe.episodes_per_task,
    )

    def on_rollout(rollout: Rollout) -> None:
        tally.add(rollout)
        score = tally.score
        done, rate = len(plans) - score.pending, score.rate or 0.0
        ctx.progress(done, len(plans), rollout.result.task, success_rate=rate)

    timed = TimedPolicy(policy)
    if isinstance(benchmark, DrivenBenchmark):
        benchmark.drive(
            timed,
            tally.missing(),
            seed=ctx.seed,
            processes=env_workers or ctx.resources.cpus,
            execute_steps=execute_steps,
            scratch=ctx.scratch,
            on_rollout=on_rollout,
        )
    else:
        run_episodes(
            benchmark,
            timed,
            tally.missing(),
            processes=ctx.resources.cpus,
            env_workers=env_workers,
            execute_steps=execute_steps,
            on_rollout=on_rollout,
        )
    write_measures(ctx.records, timed.measures())
    steps = execute_steps or policy.execute_steps
    results = tally.finish()
    if attribution:
        from foundry_core.evaluation.rollout.attribution import attribute

        attribute(
            ctx.out,
            benchmark,
            policy,
            plans,
            results,
            count=attribution,
            execute_steps=execute_steps,
        )
    return _conclude(ctx, benchmark, results, {"execute_steps": steps, **facts}, design)


def _conclude(
    ctx: stage.StageContext,
    benchmark: Benchmark,
    results: "list[EpisodeResult]",
    facts: Mapping[str, Any],
    design: "Design | None",
) -> dict[str, Any]:
    """Writes evaluation.json and the records; returns the metrics. An evaluation of crashes only
    says nothing about the policy and is a failure of the stage."""
    from foundry_core.evaluation.facts import EvaluationFacts
    from foundry_core.evaluation.score import Evaluation, write_episodes, write_evaluation
    from foundry_core.evaluation.success import criterion

    recipe, options = ctx.recipe, benchmark.model_dump(mode="json")
    evaluation = Evaluation.of(results, recipe.budget or recipe.episodes_per_task, design)
    limits = {task: benchmark.task(task).max_steps for task in evaluation.outcomes}
    max_steps = {task: limit for task, limit in limits.items() if limit is not None}
    found = EvaluationFacts(
        benchmark=recipe.benchmark,
        options=options,
        packages=benchmark.versions(),
        hz=benchmark.hz,
        success=options["success"],
        criterion=criterion(benchmark.success, max_steps.values()),
        max_steps=max_steps,
        first_scenario=recipe.first_scenario,
        episodes_per_task=recipe.episodes_per_task,
        **facts,
    )
    write_episodes(ctx.records, results)
    metrics = write_evaluation(ctx.out, ctx.records, evaluation, found)
    if not metrics["n"]:
        raise RuntimeError(
            f"all {metrics['crashed']} episodes crashed; the first:\n{results[0].failure_message}"
        )
    return metrics
