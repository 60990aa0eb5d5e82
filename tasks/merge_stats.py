"""Statistics of several robot datasets → statistics of their mix."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from foundry_core.errors import FoundryError
from foundry_core.pipeline import stage


class MergeStatsRecipe(stage.Recipe):
    """weights: share of the training mix per dataset label, as in data.robot.weights; null counts
    every observation once. Weight 0 leaves a dataset out, extremes included."""

    weights: dict[str, float] | None = Field(
        None,
        description="share of the mix per dataset label, as in data.robot.weights; 0 leaves one "
        "out; null: every observation counts once",
    )

    @model_validator(mode="after")
    def _weights_can_be_drawn(self) -> Self:
        if self.weights is not None and (
            any(weight < 0 for weight in self.weights.values()) or not any(self.weights.values())
        ):
            raise ValueError(f"weights {self.weights} must not be negative, nor all 0")
        return self


class MergeStats(stage.Stage):
    kind = "merge_stats"
    output = stage.ArtifactType.STATISTICS
    seeded = False
    inputs: ClassVar[Mapping[str, stage.Slot]] = {
        "datasets": stage.slot(stage.ArtifactType.ROBOT_SHARDS, many=True)
    }
    Recipe = MergeStatsRecipe

    @classmethod
    def check(cls, recipe: MergeStatsRecipe, inputs: Mapping[str, Any]) -> None:
        labels = sorted(inputs.get("datasets", {}))
        if recipe.weights is not None and sorted(recipe.weights) != labels:
            raise FoundryError(
                f"merge_stats.weights name {sorted(recipe.weights)}, connected are {labels}",
                "give every dataset a weight (0 means never), or none at all",
            )

    @staticmethod
    def run(ctx: stage.StageContext) -> Mapping[str, Any]:
        from foundry_core.data.inspection.check import merged_coverage
        from foundry_core.data.robot.coverage import NOTED
        from foundry_core.data.statistics.dataset import merge_files
        from foundry_core.files import write_json

        paths = {label: artifact.path for label, artifact in ctx.inputs["datasets"].items()}
        merged, report = merge_files(paths, ctx.recipe.weights)
        merged.save(ctx.out / "stats.json")
        found = merged_coverage(merged, paths.values())
        shown = {name: asdict(field) for name, field in found.items()}
        report |= {"weights": ctx.recipe.weights, "normalization": shown}
        write_json(ctx.out / "report.json", report)
        shares = [share for field in found.values() for share in field.clipped]
        return {
            "datasets": len(paths),
            "windows": merged.windows,
            "fields": len(merged.fields),
            "partial_fields": len(report["partial_fields"]),
            "fields_with_different_horizons": len(report["horizons"]),
            "clipped_dimensions": sum(share > NOTED for share in shares),
            "largest_clipped_share": max(shares, default=0.0),
            "constant_dimensions": sum(sum(field.constant) for field in found.values()),
        }


STAGE = MergeStats
