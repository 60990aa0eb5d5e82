"""Evaluations → a verdict: the base against every other, with exact tests."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from foundry_core.errors import FoundryError
from foundry_core.evaluation.closed_loop import scenarios_of
from foundry_core.pipeline import stage


class CompareRecipe(stage.Recipe):
    base: str = Field(description="label of the evaluation the others are compared with")
    alpha: float = Field(0.05, gt=0, lt=1, description="level of the whole table")


class Compare(stage.Stage):
    kind = "compare"
    output = stage.ArtifactType.COMPARISON
    seeded = False
    inputs: ClassVar[Mapping[str, stage.Slot]] = {
        "evaluations": stage.slot(stage.ArtifactType.EVALUATION, many=True),
        "controls": stage.slot(stage.ArtifactType.EVALUATION, many=True, optional=True),
        "quality": stage.slot(stage.ArtifactType.QUALITY, many=True, optional=True),
    }
    Recipe = CompareRecipe

    @classmethod
    def check(cls, recipe: CompareRecipe, inputs: Mapping[str, Any]) -> None:
        labels = sorted(inputs["evaluations"])
        if recipe.base not in labels:
            raise FoundryError(
                f"base {recipe.base!r} is no label of the evaluations {labels}", "name one of them"
            )
        if len(labels) < 2:
            raise FoundryError("one evaluation cannot be compared", "connect at least two")
        twice = sorted(set(labels) & set(inputs.get("controls", {})))
        if twice:
            raise FoundryError(
                f"{twice[0]!r} is both an evaluation and a control",
                "what is compared enters the tests, a control does not: give it one label",
            )

        _check_asked(recipe, inputs["evaluations"])

    @classmethod
    def notes(cls, recipe: CompareRecipe, inputs: Mapping[str, Any]) -> list[str]:
        """What the base was asked and another evaluation or control was not: pairing is lost."""
        upstream = {**inputs["evaluations"], **inputs.get("controls", {})}
        asked = {
            label: scenarios_of(one.recipe.model_dump(mode="json"))
            for label, one in upstream.items()
        }
        wanted = asked[recipe.base]
        return [
            f"{label} is evaluated with {name} = {value}, {recipe.base} with {wanted[name]}"
            for label, values in asked.items()
            for name, value in values.items()
            if name in wanted and value != wanted[name]
        ]

    @staticmethod
    def run(ctx: stage.StageContext) -> Mapping[str, Any]:
        from foundry_core.evaluation.comparison.compare import compare
        from foundry_core.evaluation.comparison.controls import with_controls
        from foundry_core.evaluation.comparison.report import write_comparison
        from foundry_core.evaluation.comparison.upstream import with_quality
        from foundry_core.evaluation.quality import read_quality
        from foundry_core.evaluation.together import read_together

        read = {
            slot: {label: artifact.path for label, artifact in named.items()}
            for slot, named in ctx.inputs.items()
        }
        evaluations = read_together(read["evaluations"])
        found = compare(evaluations, ctx.recipe.base, ctx.recipe.alpha)
        controls = read_together(read.get("controls", {}))
        quality = {label: read_quality(folder) for label, folder in read.get("quality", {}).items()}
        return write_comparison(ctx.out, with_quality(with_controls(found, controls), quality))


def _check_asked(recipe: CompareRecipe, evaluations: Mapping[str, stage.Upstream]) -> None:
    """What a comparison refuses when it runs, as far as recipes say it: other benchmarks, other
    designs. Imported evaluations say it in their files."""
    known = {
        label: one.recipe for label, one in evaluations.items() if hasattr(one.recipe, "benchmark")
    }
    for label, asked in known.items():
        first, wanted = next(iter(known.items()))
        if asked.benchmark != wanted.benchmark:
            raise FoundryError(
                f"{label} is evaluated on benchmark {asked.benchmark}, {first} on "
                f"{wanted.benchmark}",
                "compare evaluations of one benchmark",
            )
        stated, other = _registered(asked), _registered(wanted)
        if stated != other:
            raise FoundryError(
                f"{label} is registered with {stated}, {first} with {other}",
                "one table has one design: evaluate all with the same design and budget",
            )
        design = getattr(asked, "design", None)
        if design is not None:
            design.check_table(recipe.base, recipe.alpha)


def _registered(recipe: Any) -> str:
    design = getattr(recipe, "design", None)
    if design is None:
        return "no design"
    return f"{design.model_dump_json()} over {recipe.budget or recipe.episodes_per_task} rounds"


STAGE = Compare
