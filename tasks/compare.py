"""Evaluations → a verdict: the base against every other, with exact tests."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from foundry_core.errors import FoundryError
from foundry_core.pipeline import stage


class CompareRecipe(stage.Recipe):
    base: str = Field(description="label of the evaluation the others are compared with")
    alpha: float = Field(0.05, gt=0, lt=1, description="level of the whole table")


class Compare(stage.Stage):
    kind = "compare"
    output = stage.ArtifactType.COMPARISON
    seeded = False
    inputs: ClassVar[Mapping[str, stage.Slot]] = {
        "evaluations": stage.slot(stage.ArtifactType.EVALUATION, many=True)
    }
    Recipe = CompareRecipe

    @classmethod
    def check(cls, recipe: CompareRecipe, inputs: Mapping[str, Any]) -> None:
        labels = sorted(inputs["evaluations"])
        if recipe.base not in labels:
            raise FoundryError(
                f"base {recipe.base!r} is no label of the evaluations {labels}", "name one of them"
            )
        if len(labels) < 2:
            raise FoundryError("one evaluation cannot be compared", "connect at least two")

    @staticmethod
    def run(ctx: stage.StageContext) -> Mapping[str, Any]:
        from foundry_core.evaluation.comparison.compare import compare
        from foundry_core.evaluation.comparison.report import write_comparison
        from foundry_core.evaluation.together import read_together

        inputs = ctx.inputs["evaluations"].items()
        evaluations = read_together({label: artifact.path for label, artifact in inputs})
        return write_comparison(ctx.out, compare(evaluations, ctx.recipe.base, ctx.recipe.alpha))


STAGE = Compare
