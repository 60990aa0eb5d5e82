"""Evaluations of an ablation's variants → a verdict: which change helped, and how sure it is.

Kept apart from `compare`, whose labels are policies of one pipeline: here several evaluations, one
per seed, stand behind one label.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from foundry_core.config.canonical import OmitWhen
from foundry_core.errors import FoundryError
from foundry_core.evaluation.design import Design
from foundry_core.pipeline import stage

# What decides which scenarios an evaluation meets, and how many were planned before the first one.
_SCENARIOS = ("benchmark", "tasks", "episodes_per_task", "budget", "design", "first_scenario")


class PlannedRace(stage.Config):
    """The evaluations are parts, played between two looks; who was decided played no more."""

    design: Design
    rounds: int = Field(ge=1, description="the budget: scenarios per task")


class VerdictRecipe(stage.Recipe):
    base: str = Field(description="the variant that the others are held against")
    variants: dict[str, tuple[str, ...]] = Field(
        description="variant → labels of its evaluations, one per seed; in a race its parts"
    )
    alpha: float = Field(0.05, gt=0, lt=1, description="level of the whole table")
    started: int | None = Field(
        None, ge=1, description="comparisons as they were started; those dropped since count"
    )
    race: Annotated[PlannedRace | None, OmitWhen(None)] = Field(
        None, description="the design by which variants stopped, fixed before the first episode"
    )

    @model_validator(mode="after")
    def _names_its_base(self) -> Self:
        if self.base not in self.variants:
            raise ValueError(f"base {self.base!r} is none of the variants {list(self.variants)}")
        if self.race is not None and self.race.design.alpha != self.alpha:
            raise ValueError(f"alpha {self.alpha} is not {self.race.design.alpha} of the design")
        return self


class Verdict(stage.Stage):
    kind = "verdict"
    output = stage.ArtifactType.COMPARISON
    seeded = False
    inputs: ClassVar[Mapping[str, stage.Slot]] = {
        "evaluations": stage.slot(stage.ArtifactType.EVALUATION, many=True)
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
        first = recipe.variants[recipe.base][0]
        wanted = _scenarios(connected[first].recipe)
        for labels in recipe.variants.values():
            for number, label in enumerate(labels):
                expected = wanted | (_part(recipe.race, number, wanted) if recipe.race else {})
                for name, value in _scenarios(connected[label].recipe).items():
                    if value != expected.get(name):
                        raise FoundryError(
                            f"{label} is evaluated with {name} = {value}, not {expected.get(name)} "
                            f"as {first} demands: variants must meet the same scenarios",
                            "vary what trains or how the policy runs, not what it is asked",
                        )

    @staticmethod
    def run(ctx: stage.StageContext) -> Mapping[str, Any]:
        from foundry_core.evaluation.comparison.race import finished_race
        from foundry_core.evaluation.comparison.report import write_comparison
        from foundry_core.evaluation.comparison.verdict import judge_variants
        from foundry_core.evaluation.score import read_evaluation

        inputs = ctx.inputs["evaluations"].items()
        evaluations = {label: read_evaluation(artifact.path) for label, artifact in inputs}
        recipe = ctx.recipe
        names = sorted(recipe.variants, key=lambda name: (name != recipe.base, _natural(name)))
        variants = {name: recipe.variants[name] for name in names}
        if recipe.race is not None:
            design, rounds = recipe.race.design, recipe.race.rounds
            parts = {name: [evaluations[one] for one in variants[name]] for name in names}
            evaluations = finished_race(design, rounds, parts, (recipe.started or 0) + 1)
            variants = {name: (name,) for name in names}
        found = judge_variants(
            evaluations, variants, recipe.base, recipe.alpha, size=recipe.started
        )
        return write_comparison(ctx.out, found)


def _natural(name: str) -> list[tuple[float, str]]:
    """steps=400 before steps=1000."""
    parts = re.split(r"(\d+(?:\.\d+)?)", name)
    return [(float(part), "") if i % 2 else (0.0, part) for i, part in enumerate(parts)]


def _part(race: PlannedRace, number: int, first: Mapping[str, Any]) -> dict[str, Any]:
    """The scenarios of a variant's part, counted from 0, where the base's first part has these."""
    ends = (0, *race.design.ends(race.rounds))
    if number + 1 >= len(ends):
        raise FoundryError(
            f"a variant has {number + 1} parts, the design {len(ends) - 1} looks",
            "a part is what is played before a look",
        )
    return {
        "first_scenario": first.get("first_scenario", 0) + ends[number],
        "episodes_per_task": ends[number + 1] - ends[number],
    }


def _scenarios(recipe: Any) -> dict[str, Any]:
    values = recipe.model_dump(mode="json")
    return {name: values[name] for name in _SCENARIOS if name in values}


STAGE = Verdict
