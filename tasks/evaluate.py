"""Policy → Evaluation: closed-loop episodes on fresh scenarios of a benchmark."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from foundry_core.config.canonical import OmitWhen
from foundry_core.errors import FoundryError
from foundry_core.evaluation.benchmarks.base import BENCHMARKS, load_benchmark
from foundry_core.evaluation.design import Design
from foundry_core.files import write_json_lines
from foundry_core.identity.code import fingerprint
from foundry_core.identity.sources import package_fingerprint
from foundry_core.pipeline import stage

if TYPE_CHECKING:
    from foundry_core.evaluation.score import EpisodeResult


class EvaluateRecipe(stage.Recipe):
    """Scenario indices are the benchmark's, not the seed's: evaluations that share
    `first_scenario` meet the same scenarios, which is what pairs them in a comparison. The seed
    is the policy's noise."""

    benchmark: str = "metaworld"
    options: dict[str, Any] = Field(
        default_factory=dict, description="settings of the benchmark, such as render"
    )
    tasks: tuple[str, ...] = Field((), description="empty: the benchmark's default tasks")
    episodes_per_task: int = Field(25, ge=1)
    budget: int | None = Field(
        None, description="episodes per task fixed for good; default: episodes_per_task"
    )
    design: Annotated[Design | None, OmitWhen(None)] = Field(
        None,
        description="how it may be judged before the budget is played; default: a look a round",
    )
    first_scenario: int = Field(0, ge=0)
    execute_steps: int | None = Field(
        None, ge=1, description="targets carried out per plan; default: the policy's"
    )
    blank_images: bool = Field(False, description="control: the policy sees grey pictures")
    record_per_task: int = Field(2, ge=0, description="episodes per task that keep pictures")

    @model_validator(mode="after")
    def _budget_holds(self) -> Self:
        if self.budget is not None and self.budget < self.episodes_per_task:
            raise ValueError(
                f"episodes_per_task {self.episodes_per_task} exceeds the budget {self.budget}"
            )
        budget = self.budget or self.episodes_per_task
        if self.design is not None and (self.design.looks or 1) > budget:
            raise ValueError(f"design.looks {self.design.looks} exceeds the budget {budget}")
        return self


class EvaluateResources(stage.Resources):
    env_workers: int = Field(
        0, ge=0, description="episodes at a time (0: one per cpu); more make larger batches"
    )
    device: str = Field("cpu", description="where the policy runs")


class Evaluate(stage.Stage):
    kind = "evaluate"
    output = stage.ArtifactType.EVALUATION
    inputs: ClassVar[Mapping[str, stage.Slot]] = {"policy": stage.slot(stage.ArtifactType.POLICY)}
    Recipe = EvaluateRecipe
    Resources = EvaluateResources

    @classmethod
    def sources(cls, recipe: EvaluateRecipe) -> Mapping[str, str]:
        """The benchmark is loaded by name, so its code enters the identity here."""
        benchmark = load_benchmark(recipe.benchmark, recipe.options)
        code = fingerprint(BENCHMARKS.module(recipe.benchmark), "BENCHMARK").digest
        packages = {name: package_fingerprint(name) for name in benchmark.packages}
        return {f"benchmark:{recipe.benchmark}": code, **packages}

    @classmethod
    def check(
        cls, recipe: EvaluateRecipe, inputs: Mapping[str, Mapping[str, stage.Upstream]]
    ) -> None:
        benchmark = load_benchmark(recipe.benchmark, recipe.options)
        benchmark.check_scenarios(recipe.first_scenario, recipe.episodes_per_task)
        for task in recipe.tasks:
            benchmark.task(task)
        for upstream in _ancestors(inputs):
            benchmark.check_training(upstream.kind, upstream.recipe)
        for name, policy in inputs.get("policy", {}).items():
            _check_horizon(recipe.execute_steps, name, policy.recipe)

    @staticmethod
    def run(ctx: stage.StageContext) -> Mapping[str, Any]:
        from foundry_core.evaluation.rollout.episodes import Rollout, plan_episodes, run_episodes
        from foundry_core.evaluation.rollout.tally import Tally
        from foundry_core.serving.policy import load_policy

        recipe = ctx.recipe
        benchmark = load_benchmark(recipe.benchmark, recipe.options)
        policy = load_policy(
            ctx.input("policy").path,
            device=ctx.resources.device,
            blank_images=recipe.blank_images,
        )
        plans = plan_episodes(
            benchmark,
            recipe.tasks or benchmark.default_tasks(),
            first=recipe.first_scenario,
            count=recipe.episodes_per_task,
            seed=ctx.seed,
            record=recipe.record_per_task,
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

        run_episodes(
            benchmark,
            policy,
            tally.missing(),
            processes=ctx.resources.cpus,
            env_workers=ctx.resources.env_workers or None,
            execute_steps=recipe.execute_steps,
            on_rollout=on_rollout,
        )
        steps = recipe.execute_steps or policy.execute_steps
        return _conclude(ctx, tally.finish(), steps)


def _conclude(
    ctx: stage.StageContext, results: "list[EpisodeResult]", execute_steps: int
) -> dict[str, Any]:
    """Writes evaluation.json and the records; returns the metrics. An evaluation of crashes only
    says nothing about the policy and is a failure of the stage."""
    from foundry_core.evaluation.rollout.crashes import crash_causes
    from foundry_core.evaluation.rollout.tally import episode_row
    from foundry_core.evaluation.score import Evaluation, write_evaluation

    write_json_lines(ctx.records / "episodes.jsonl", map(episode_row, results))
    recipe = ctx.recipe
    benchmark = load_benchmark(recipe.benchmark, recipe.options)
    facts = {
        "benchmark": recipe.benchmark,
        "options": benchmark.model_dump(mode="json"),
        "packages": {name: version(name) for name in benchmark.packages},
        "hz": benchmark.hz,
        "success": benchmark.success_semantics,
        "first_scenario": recipe.first_scenario,
        "episodes_per_task": recipe.episodes_per_task,
        "execute_steps": execute_steps,
        "seed": ctx.seed,
        "blank_images": recipe.blank_images,
        "crashes": crash_causes(results),
        # By content: an equal policy under another key makes an equal evaluation.
        "policy": ctx.input("policy").content,
    }
    budget = recipe.budget or recipe.episodes_per_task
    evaluation = Evaluation.of(results, budget, recipe.design)
    metrics = write_evaluation(ctx.out, ctx.records, evaluation, facts)
    if not metrics["n"]:
        raise RuntimeError(
            f"all {metrics['crashed']} episodes crashed; the first:\n{results[0].failure_message}"
        )
    return metrics


def _check_horizon(execute_steps: int | None, name: str, policy: Any) -> None:
    """A policy's recipe says how far it predicts; an imported one states nothing."""
    wanted = getattr(getattr(getattr(policy, "data", None), "robot", None), "inputs", None)
    ahead = wanted.horizon - wanted.action_past if wanted else None
    if execute_steps is not None and ahead is not None and execute_steps > ahead:
        raise FoundryError(
            f"execute_steps = {execute_steps} exceeds the {ahead} steps that policy {name!r} "
            "predicts",
            "lower execute_steps, or train with a larger data.robot.inputs.horizon",
        )


def _ancestors(inputs: Mapping[str, Mapping[str, stage.Upstream]]) -> list[stage.Upstream]:
    found: list[stage.Upstream] = []
    for artifacts in inputs.values():
        for upstream in artifacts.values():
            found += [upstream, *_ancestors(upstream.inputs)]
    return found


STAGE = Evaluate
