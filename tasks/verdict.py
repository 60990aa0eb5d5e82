"""Evaluations of an ablation's variants → a verdict: which change helped, and how sure it is.

Kept apart from `compare`, whose labels are policies of one pipeline: here several evaluations, one
per seed, stand behind one label.
"""

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from foundry_core.errors import FoundryError
from foundry_core.evaluation.closed_loop import scenarios_of
from foundry_core.pipeline import stage


class VerdictRecipe(stage.Recipe):
    base: str = Field(description="the variant that the others are held against")
    variants: dict[str, tuple[str, ...]] = Field(
        description="variant → labels of its evaluations, one per seed"
    )
    alpha: float = Field(0.05, gt=0, lt=1, description="level of the whole table")
    started: int | None = Field(
        None, ge=1, description="comparisons as they were started; those dropped since count"
    )

    @model_validator(mode="after")
    def _names_its_base(self) -> Self:
        if self.base not in self.variants:
            raise ValueError(f"base {self.base!r} is none of the variants {list(self.variants)}")
        return self


class Verdict(stage.Stage):
    kind = "verdict"
    output = stage.ArtifactType.COMPARISON
    seeded = False
    inputs: ClassVar[Mapping[str, stage.Slot]] = {
        "evaluations": stage.slot(stage.ArtifactType.EVALUATION, many=True),
        "controls": stage.slot(stage.ArtifactType.EVALUATION, many=True, optional=True),
    }
    Recipe = VerdictRecipe

    @classmethod
    def check(cls, recipe: VerdictRecipe, inputs: Mapping[str, Any]) -> None:
        connected = inputs["evaluations"]
        named = [label for labels in recipe.variants.values() for label in labels]
        if sorted(named) != sorted(connected):
            raise FoundryError(
                f"the variants name the evaluations {sorted(named)}, connected are "
                f"{sorted(connected)}",
                "every evaluation belongs to exactly one variant",
            )
        # What an imported evaluation was asked, its file says and not its recipe.
        upstream = {**connected, **inputs.get("controls", {})}
        asked = {
            label: found
            for label, one in upstream.items()
            if (found := scenarios_of(one.recipe.model_dump(mode="json")))
        }
        first = next(filter(asked.__contains__, [*recipe.variants[recipe.base], *named]), "")
        wanted = asked.get(first, {})
        for label, values in asked.items():
            for name, value in values.items():
                if value != wanted.get(name):
                    raise FoundryError(
                        f"{label} is evaluated with {name} = {value}, {first} with "
                        f"{wanted.get(name)}: variants must meet the same scenarios",
                        "vary what trains or how the policy runs, not what it is asked",
                    )

    @staticmethod
    def run(ctx: stage.StageContext) -> Mapping[str, Any]:
        from foundry_core.evaluation.comparison.controls import with_controls
        from foundry_core.evaluation.comparison.report import write_comparison
        from foundry_core.evaluation.comparison.verdict import judge_variants
        from foundry_core.evaluation.together import read_together

        read = {
            slot: {label: artifact.path for label, artifact in named.items()}
            for slot, named in ctx.inputs.items()
        }
        evaluations = read_together(read["evaluations"])
        recipe = ctx.recipe
        names = sorted(recipe.variants, key=lambda name: (name != recipe.base, _natural(name)))
        variants = {name: recipe.variants[name] for name in names}
        found = judge_variants(
            evaluations, variants, recipe.base, recipe.alpha, size=recipe.started
        )
        return write_comparison(
            ctx.out, with_controls(found, read_together(read.get("controls", {})))
        )


def _natural(name: str) -> list[tuple[float, str]]:
    """steps=400 before steps=1000."""
    parts = re.split(r"(\d+(?:\.\d+)?)", name)
    return [(float(part), "") if i % 2 else (0.0, part) for i, part in enumerate(parts)]


STAGE = Verdict
