"""A training: a row of metrics.jsonl for every step, in scratch while it goes on."""

import shutil
import time

from foundry_core.files import json_line
from foundry_core.pipeline.stage import ArtifactType, Recipe, Stage, slot


class RehearseRecipe(Recipe):
    steps: int = 60
    seconds: float = 0.0
    fail_at: int | None = None
    says: str = "told to fail"


class Rehearse(Stage):
    kind = "rehearse"
    output = ArtifactType.LANGUAGE_MODEL
    inputs = {"pictures": slot(ArtifactType.CAPTION_SHARDS)}
    code = "1"
    Recipe = RehearseRecipe

    @staticmethod
    def run(ctx):
        recipe, log = ctx.recipe, ctx.scratch / "metrics.jsonl"
        with log.open("w") as rows:
            for step in range(1, recipe.steps + 1):
                time.sleep(recipe.seconds / recipe.steps)
                loss = 4 / (1 + step / 8) + 0.1 * (step % 3)
                rows.write(json_line({"step": step, "loss": loss, "lr": 1e-3}))
                rows.flush()
                ctx.progress(step, recipe.steps, "training", loss=loss, lr=1e-3)
                if step == recipe.fail_at:
                    raise ValueError(recipe.says)
        (ctx.out / "weight.txt").write_text("7.0")
        shutil.copyfile(log, ctx.records / "metrics.jsonl")
        return {"loss": loss}


STAGE = Rehearse
