"""A training whose last `tail` steps are other ones than those before: budgets share the rest.

Its whole state is a number, which each step multiplies and adds the length of the text to.
"""

import json
import time
from typing import Literal

from foundry_core.files import read_json, write_json
from foundry_core.pipeline.stage import (
    CONTINUED,
    ArtifactType,
    Recipe,
    Resources,
    Stage,
    Trunk,
    Work,
    slot,
)
from foundry_core.pipeline.trunks import LEFT, step_name


class GrowRecipe(Recipe):
    steps: int = 10
    tail: int = 2
    rate: float = 0.1
    seconds: float = 0.0
    fail: bool = False


class GrowResources(Resources):
    keep_trunk: bool = True
    extend: Literal["exact", "close", "never"] = "exact"


class Grow(Stage):
    kind = "grow"
    output = ArtifactType.LANGUAGE_MODEL
    inputs = {"text": slot(ArtifactType.TEXT_SHARDS)}
    code = "1"
    Recipe = GrowRecipe
    Resources = GrowResources

    @classmethod
    def numerics(cls, resources):
        return {"threads": str(resources.cpus)}

    @classmethod
    def trunk(cls, recipe, resources, fact):
        return Trunk(
            recipe={"rate": recipe.rate, "seconds": recipe.seconds},
            step=recipe.steps - recipe.tail,
            total=recipe.steps,
            keep=resources.keep_trunk,
            extend=resources.extend,
        )

    @classmethod
    def work(cls, recipe, inputs):
        return Work(unit="steps", amount=recipe.steps, steps=recipe.steps)

    @staticmethod
    def run(ctx):
        size = len((ctx.input("text").path / "text.txt").read_text())
        recipe, first = ctx.recipe, 0
        value, grounds = float(ctx.seed), {ctx.ground}
        if ctx.begin is not None:
            state = read_json(ctx.begin.path / step_name(ctx.begin.step) / "state.json")
            first, value = state["step"], state["value"]
            grounds |= set(state["scalars"]["grounds"])
            begun = {"key": ctx.begin.key, "trunk": ctx.begin.trunk, "step": first}
            mixed = {"mixed": True} if len(grounds) > 1 else {}
            write_json(ctx.out / CONTINUED, begun | mixed)
        branch = recipe.steps - recipe.tail
        for step in range(first, recipe.steps):
            time.sleep(recipe.seconds)
            value = value * (1 + recipe.rate) + size if step < branch else value * 0.5
            if step + 1 == branch and ctx.resources.keep_trunk:
                state = {"step": branch, "value": value, "scalars": {"grounds": sorted(grounds)}}
                write_json(ctx.scratch / LEFT / step_name(branch) / "state.json", state)
        if recipe.fail:
            raise ValueError("told to fail")
        (ctx.out / "weight.txt").write_text(json.dumps(value))
        return {"weight": value, "first": first}


STAGE = Grow
