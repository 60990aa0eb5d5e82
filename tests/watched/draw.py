"""Captioned pictures, as shards."""

from foundry_core.pipeline.stage import ArtifactType, Recipe, Stage
from tests.synthetic import make_captions


class DrawRecipe(Recipe):
    samples: int = 6


class Draw(Stage):
    kind = "draw"
    output = ArtifactType.CAPTION_SHARDS
    Recipe = DrawRecipe

    @staticmethod
    def run(ctx):
        make_captions(ctx.out, samples=ctx.recipe.samples, size=48)
        return {"samples": ctx.recipe.samples}


STAGE = Draw
