"""Writes `lines` lines of `word`."""

import time

from foundry_core.pipeline.stage import ArtifactType, Recipe, Stage
from tests.kinds.helper import render


class EmitRecipe(Recipe):
    word: str = "a"
    lines: int = 1
    rate: float = 1.0
    comment: str = ""
    seconds: float = 0.0
    fail: bool = False


class Emit(Stage):
    kind = "emit"
    output = ArtifactType.TEXT_SHARDS
    Recipe = EmitRecipe

    @staticmethod
    def run(ctx):
        for step in range(10):
            ctx.progress(step, 10, "emitting")
            time.sleep(ctx.recipe.seconds / 10)
        if ctx.recipe.fail:
            raise ValueError("told to fail")
        (ctx.out / "text.txt").write_text(render(ctx.recipe.word, ctx.recipe.lines))
        (ctx.records / "time.txt").write_text(str(time.time()))
        return {"lines": ctx.recipe.lines}


STAGE = Emit
