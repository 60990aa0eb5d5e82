"""Policy → Evaluation: closed-loop episodes on fresh scenarios of a benchmark."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from foundry_core.errors import FoundryError
from foundry_core.evaluation.closed_loop import (
    ScenariosRecipe,
    benchmark_sources,
    checked_benchmark,
    play,
)
from foundry_core.pipeline import stage


class EvaluateRecipe(ScenariosRecipe):
    """The seed is the policy's noise."""

    execute_steps: int | None = Field(
        None, ge=1, description="targets carried out per plan; default: the policy's"
    )
    blank_images: bool = Field(False, description="control: the policy sees grey pictures")
    record_per_task: int = Field(2, ge=0, description="episodes per task that keep pictures")


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
        return benchmark_sources(recipe)

    @classmethod
    def check(
        cls, recipe: EvaluateRecipe, inputs: Mapping[str, Mapping[str, stage.Upstream]]
    ) -> None:
        benchmark = checked_benchmark(recipe)
        for upstream in _ancestors(inputs):
            benchmark.check_training(upstream.kind, upstream.recipe)
        for name, policy in inputs.get("policy", {}).items():
            _check_horizon(recipe.execute_steps, name, policy.recipe)

    @staticmethod
    def run(ctx: stage.StageContext) -> Mapping[str, Any]:
        from foundry_core.serving.policy import load_policy

        recipe, artifact = ctx.recipe, ctx.input("policy")
        policy = load_policy(
            artifact.path, device=ctx.resources.device, blank_images=recipe.blank_images
        )
        # By content: an equal policy under another key makes an equal evaluation.
        facts = {
            "seed": ctx.seed,
            "blank_images": recipe.blank_images,
            "policy": artifact.content,
        }
        return play(
            ctx,
            policy,
            facts,
            record=recipe.record_per_task,
            env_workers=ctx.resources.env_workers or None,
            execute_steps=recipe.execute_steps,
        )


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
