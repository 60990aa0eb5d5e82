"""A control → Evaluation: the same scenarios, played by what has learned nothing.

Nothing trained is upstream, so it is played once and reused by every pipeline and ablation that
asks for the same scenarios.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from foundry_core.errors import FoundryError
from foundry_core.evaluation.benchmarks.base import Benchmark
from foundry_core.evaluation.closed_loop import (
    ScenariosRecipe,
    benchmark_of,
    benchmark_sources,
    checked_benchmark,
    episodes_work,
    given_away,
    play,
)
from foundry_core.pipeline import stage


class EvaluateControlRecipe(ScenariosRecipe):
    control: Literal["still", "drift"] = Field(
        "still",
        description="still: holds the pose of the episode's start; drift: commands at every plan "
        "the pose it measures then, as a policy does whose relative actions are all zero",
    )
    execute_steps: int | None = Field(
        None,
        ge=1,
        description="targets carried out per plan; drift: set it to the policy's (default 1)",
    )


class EvaluateControl(stage.Stage):
    kind = "evaluate_control"
    output = stage.ArtifactType.EVALUATION
    seeded = False
    Recipe = EvaluateControlRecipe

    @classmethod
    def sources(cls, recipe: EvaluateControlRecipe) -> Mapping[str, str]:
        return benchmark_sources(recipe)

    @classmethod
    def check(
        cls, recipe: EvaluateControlRecipe, inputs: Mapping[str, Mapping[str, stage.Upstream]]
    ) -> None:
        benchmark = checked_benchmark(recipe)
        if type(benchmark).still is Benchmark.still:
            raise FoundryError(
                f"benchmark {recipe.benchmark!r} does not say what keeps its robot where it is",
                f"define `still` in {type(benchmark).__name__}",
            )

    @classmethod
    def notes(
        cls, recipe: EvaluateControlRecipe, inputs: Mapping[str, Mapping[str, stage.Upstream]]
    ) -> list[str]:
        return given_away(recipe)

    @classmethod
    def work(
        cls, recipe: EvaluateControlRecipe, inputs: Mapping[str, Mapping[str, stage.Upstream]]
    ) -> stage.Work | None:
        return episodes_work(recipe)

    @staticmethod
    def run(ctx: stage.StageContext) -> Mapping[str, Any]:
        from foundry_core.evaluation.rollout.controls import Control

        recipe = ctx.recipe
        control = Control(benchmark_of(recipe), recipe.control, recipe.execute_steps)
        return play(ctx, control, {"control": recipe.control})


STAGE = EvaluateControl
