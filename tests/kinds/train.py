"""A training stage: a declared version, checkpoints in scratch."""

import json
import time

from foundry_core.pipeline.stage import ArtifactType, Recipe, Stage, Work, slot


class TrainRecipe(Recipe):
    steps: int = 5
    rate: float = 0.1
    seconds: float = 0.0


class Train(Stage):
    kind = "train"
    output = ArtifactType.LANGUAGE_MODEL
    inputs = {"text": slot(ArtifactType.TEXT_SHARDS)}
    code = "1"
    Recipe = TrainRecipe

    @classmethod
    def work(cls, recipe, inputs):
        return Work(unit="steps", amount=recipe.steps, steps=recipe.steps)

    @staticmethod
    def run(ctx):
        text = (ctx.input("text").path / "text.txt").read_text()
        checkpoint = ctx.scratch / "state.json"
        state = {"step": 0, "weight": float(len(text)) + ctx.seed}
        if checkpoint.exists():
            state = json.loads(checkpoint.read_text())
        resumed = state["step"]
        while state["step"] < ctx.recipe.steps:
            time.sleep(ctx.recipe.seconds / ctx.recipe.steps)
            state = {"step": state["step"] + 1, "weight": state["weight"] * (1 - ctx.recipe.rate)}
            temporary = checkpoint.with_suffix(".tmp")
            temporary.write_text(json.dumps(state))
            temporary.replace(checkpoint)
            ctx.progress(state["step"], ctx.recipe.steps)
        (ctx.out / "weight.txt").write_text(repr(state["weight"]))
        (ctx.records / "resumed.txt").write_text(str(resumed))
        return {"weight": state["weight"]}


STAGE = Train
