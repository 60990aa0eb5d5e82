"""Counts the words of its inputs."""

from foundry_core.pipeline.stage import ArtifactType, Recipe, Stage, slot


class MeasureRecipe(Recipe):
    unit: str = "lines"
    budget: int = 10


class Measure(Stage):
    kind = "measure"
    output = ArtifactType.EVALUATION
    inputs = {"texts": slot(ArtifactType.TEXT_SHARDS, many=True)}
    Recipe = MeasureRecipe

    @staticmethod
    def run(ctx):
        total = 0
        for artifact in ctx.inputs["texts"].values():
            total += len((artifact.path / "text.txt").read_text().splitlines())
        (ctx.out / "total.txt").write_text(f"{total} {ctx.recipe.unit}\n")
        (ctx.records / "metrics.jsonl").write_text(f'{{"step": 0, "total": {total}}}\n')
        return {"total": total}


STAGE = Measure
