"""Evaluations of an ablation's variants → a verdict: which change helped, and how sure it is.

Kept apart from `compare`, whose labels are policies of one pipeline: here several evaluations, one
per seed, stand behind one label.
"""

import re
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, model_validator

from foundry_core.config.canonical import OmitWhen
from foundry_core.errors import FoundryError
from foundry_core.evaluation.closed_loop import scenarios_of
from foundry_core.evaluation.design import Design
from foundry_core.pipeline import stage


class PlannedRace(stage.Config):
    """The evaluations are parts, played between two looks; who was decided played no more."""

    design: Design = Field(description="when it looks, and what each look may conclude")
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
    settings: Annotated[dict[str, dict[str, Any]] | None, OmitWhen(None)] = Field(
        None,
        description="variant → path → value, the base with all paths: grids and ordered values "
        "are judged as factors besides",
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
        "evaluations": stage.slot(stage.ArtifactType.EVALUATION, many=True),
        "controls": stage.slot(stage.ArtifactType.EVALUATION, many=True, optional=True),
        "quality": stage.slot(stage.ArtifactType.QUALITY, many=True, optional=True),
    }
    Recipe = VerdictRecipe

    @classmethod
    def check(cls, recipe: VerdictRecipe, inputs: Mapping[str, Any]) -> None:
        connected, controls = inputs["evaluations"], inputs.get("controls", {})
        named = [label for labels in recipe.variants.values() for label in labels]
        if sorted(named) != sorted(connected):
            raise FoundryError(
                f"the variants name the evaluations {sorted(named)}, connected are "
                f"{sorted(connected)}",
                "every evaluation belongs to exactly one variant",
            )
        # What an imported evaluation was asked, its file says and not its recipe.
        asked = {
            label: found
            for label, one in {**connected, **controls}.items()
            if (found := _asked(one.recipe.model_dump(mode="json")))
        }
        race = recipe.race  # of which a later part does not say where the first one begins
        leading = [recipe.variants[recipe.base], *recipe.variants.values()]
        labels = (label for some in leading for label in (some[:1] if race else some))
        first = next(filter(asked.__contains__, labels), "")
        wanted = dict.fromkeys(asked, asked.get(first, {}))
        if race is not None:
            wanted = _of_race(recipe.variants, race, asked.get(first, {}), controls)
        for label, values in asked.items():
            for name, value in values.items():
                if value != wanted[label].get(name):
                    raise FoundryError(
                        f"{label} is evaluated with {name} = {value}, not "
                        f"{wanted[label].get(name)} as {first} demands: variants must meet the "
                        "same scenarios",
                        "vary what trains or how the policy runs, not what it is asked",
                    )

    @staticmethod
    def run(ctx: stage.StageContext) -> Mapping[str, Any]:
        from foundry_core.evaluation.comparison.controls import with_controls
        from foundry_core.evaluation.comparison.race import finished_race
        from foundry_core.evaluation.comparison.report import write_comparison
        from foundry_core.evaluation.comparison.upstream import with_quality
        from foundry_core.evaluation.comparison.verdict import judge_variants
        from foundry_core.evaluation.quality import read_quality
        from foundry_core.evaluation.together import read_together

        read = {
            slot: {label: artifact.path for label, artifact in named.items()}
            for slot, named in ctx.inputs.items()
        }
        evaluations = read_together(read["evaluations"])
        recipe = ctx.recipe
        names = sorted(recipe.variants, key=lambda name: (name != recipe.base, _natural(name)))
        variants = {name: recipe.variants[name] for name in names}
        if recipe.race is not None:
            design, rounds = recipe.race.design, recipe.race.rounds
            parts = {name: [evaluations[one] for one in variants[name]] for name in names}
            evaluations = finished_race(design, rounds, parts, (recipe.started or 0) + 1)
            variants = {name: (name,) for name in names}
        found = judge_variants(
            evaluations,
            variants,
            recipe.base,
            recipe.alpha,
            size=recipe.started,
            settings=recipe.settings,
        )
        found = with_controls(found, read_together(read.get("controls", {})))
        quality = {label: read_quality(folder) for label, folder in read.get("quality", {}).items()}
        return write_comparison(ctx.out, with_quality(found, quality))


def _natural(name: str) -> list[tuple[float, str]]:
    """steps=400 before steps=1000."""
    parts = re.split(r"(\d+(?:\.\d+)?)", name)
    return [(float(part), "") if i % 2 else (0.0, part) for i, part in enumerate(parts)]


def _asked(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What is equal in all evaluations of a verdict. A control states no design; a budget of just
    the episodes is none."""
    found = scenarios_of(recipe) | {name: recipe[name] for name in ("design",) if name in recipe}
    if found and found.get("budget") == found.get("episodes_per_task"):
        found["budget"] = None
    return found


def _of_race(
    variants: Mapping[str, tuple[str, ...]],
    race: PlannedRace,
    first: Mapping[str, Any],
    controls: Iterable[str],
) -> dict[str, dict[str, Any]]:
    """Label → what it is asked, where the first part of a variant is asked `first`: a part of the
    scenarios; of a control all of them."""
    ends = (0, *race.design.ends(race.rounds))
    whole = {label: {**first, "episodes_per_task": race.rounds} for label in controls}
    begin = first.get("first_scenario", 0)
    parts = {}
    for labels in variants.values():
        if len(labels) >= len(ends):
            raise FoundryError(
                f"a variant has {len(labels)} parts, the design {len(ends) - 1} looks",
                "a part is what is played before a look",
            )
        for label, (played, end) in zip(labels, pairwise(ends), strict=False):
            part = {"first_scenario": begin + played, "episodes_per_task": end - played}
            parts[label] = {**first, **part}
    return whole | parts


STAGE = Verdict
