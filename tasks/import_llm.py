"""A language model of the Hugging Face hub or a folder → a language model and its tokenizer."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from foundry_core.models.config import HFLanguageConfig, Pretrained, weight_sources
from foundry_core.pipeline import stage
from foundry_core.training.recipes import Inputs, ModelFacts


class ImportLlmRecipe(Pretrained, stage.Recipe):
    native: bool | None = Field(
        None,
        description="Llama, Qwen2, Qwen3, StableLM as the native model; null: where it can be",
    )


class ImportLlm(stage.Stage):
    kind = "import_llm"
    code = "1"
    output = stage.ArtifactType.LANGUAGE_MODEL
    seeded = False
    Recipe = ImportLlmRecipe

    @classmethod
    def sources(cls, recipe: ImportLlmRecipe) -> Mapping[str, str]:
        return weight_sources(recipe, "recipe")

    @classmethod
    def states(cls, recipe: ImportLlmRecipe, inputs: Inputs) -> ModelFacts:
        weights = recipe.model_dump(exclude={"native"})
        return ModelFacts(model=HFLanguageConfig(**weights), own_tokenizer=True)

    @staticmethod
    def run(ctx: stage.StageContext) -> Mapping[str, Any]:
        from foundry_core.models.huggingface.pretrained import import_language

        return import_language(ctx.recipe, ctx.out, ctx.scratch, ctx.recipe.native)


STAGE = ImportLlm
