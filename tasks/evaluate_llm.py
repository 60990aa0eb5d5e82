"""Language model → Quality: what it knows by questions with choices, and how well it predicts text.

The questions are those of lm-evaluation-harness, from local files in the data sets' own forms, with
its definitions: a model's number here is its number there.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field

from foundry_core.data.sources.base import TextSource
from foundry_core.errors import FoundryError
from foundry_core.evaluation.language.base import QuestionSource
from foundry_core.evaluation.quality_recipe import QualityResources, check_device
from foundry_core.models.sizes import positive
from foundry_core.pipeline import stage


class EvaluateLlmRecipe(stage.Recipe):
    questions: dict[str, QuestionSource] = Field(
        {}, description="name → questions with choices, such as {format: hellaswag, path: ...}"
    )
    text: dict[str, TextSource] = Field(
        {}, description="name → held-out documents, of which it gives the bits per byte"
    )
    limit: int | None = positive(None, description="of each, the first so many; null: all")
    context: int | None = positive(
        None, description="tokens that it reads at most; null: the model's context, else 2048"
    )
    max_skipped: int = Field(0, ge=0, description="unreadable documents of a text to tolerate")


class EvaluateLlm(stage.Stage):
    kind = "evaluate_llm"
    output = stage.ArtifactType.QUALITY
    seeded = False
    inputs: ClassVar[Mapping[str, stage.Slot]] = {
        "model": stage.slot(
            stage.ArtifactType.LANGUAGE_MODEL, stage.ArtifactType.VISION_LANGUAGE_MODEL
        )
    }
    Recipe = EvaluateLlmRecipe
    Resources = QualityResources

    @classmethod
    def sources(cls, recipe: EvaluateLlmRecipe) -> Mapping[str, str]:
        named = {**recipe.questions, **recipe.text}
        return {
            f"{name}: {what}": digest
            for name, source in named.items()
            for what, digest in source.identity().items()
        }

    @classmethod
    def check(cls, recipe: EvaluateLlmRecipe, inputs: Mapping[str, Any]) -> None:
        if not recipe.questions and not recipe.text:
            raise FoundryError(
                "evaluate_llm is asked nothing", "give it `questions`, or held-out `text`"
            )
        twice = sorted(recipe.questions.keys() & recipe.text.keys())
        if twice:
            raise FoundryError(
                f"{twice[0]!r} is a name of questions and of a text", "rename one of them"
            )
        for name, source in recipe.text.items():
            if source.token_ids:
                raise FoundryError(
                    f"text.{name}: the documents of {source.format} are token ids already",
                    "bits per byte need texts: name a source of texts",
                )

    @classmethod
    def numerics(cls, resources: QualityResources) -> Mapping[str, str]:
        return {"threads": str(resources.cpus)} if resources.device == "cpu" else {}

    @classmethod
    def check_resources(cls, recipe: EvaluateLlmRecipe, resources: QualityResources) -> None:
        check_device(resources)

    @staticmethod
    def run(ctx: stage.StageContext) -> Mapping[str, Any]:
        from foundry_core.evaluation.language.exam import examine_language

        return examine_language(ctx)


STAGE = EvaluateLlm
