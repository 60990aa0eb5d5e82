"""Packed text → a language model: a new one, or the upstream one trained on."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from foundry_core.config.canonical import OmitWhen
from foundry_core.data.loading.config import DataConfig, TextData
from foundry_core.errors import FoundryError
from foundry_core.models.config import LanguageConfig, by_kind
from foundry_core.pipeline import stage
from foundry_core.training.config import TrainingConfig
from foundry_core.training.recipes import (
    FreshAdapters,
    Frozen,
    Inputs,
    LrScale,
    ModelFacts,
    TrainStage,
    check_source_of_tokens,
    check_texts,
    check_vocabulary_size,
    facts_of,
)
from foundry_core.training.trunk import text_steps

if TYPE_CHECKING:
    from foundry_core.training.distributed import World
    from foundry_core.training.stages.job import Training


class TrainLlmRecipe(stage.Recipe):
    model: Annotated[LanguageConfig | None, by_kind("transformer")] = Field(
        None, description="null: the upstream model's"
    )
    data: DataConfig = Field(DataConfig(text=TextData()), description="what a batch holds")
    training: TrainingConfig = Field(description="budget, optimizer, schedule and precision")
    lora: FreshAdapters = None
    frozen: Annotated[Frozen, OmitWhen(())] = ()
    lr_scale: Annotated[LrScale, OmitWhen({})] = {}


class TrainLlm(TrainStage):
    kind = "train_llm"
    parts = ("language",)
    output = stage.ArtifactType.LANGUAGE_MODEL
    inputs: ClassVar[Mapping[str, stage.Slot]] = {
        "text": stage.slot(stage.ArtifactType.TEXT_SHARDS, many=True),
        "llm": stage.slot(stage.ArtifactType.LANGUAGE_MODEL, optional=True),
        "tokenizer": stage.slot(stage.ArtifactType.TOKENIZER, optional=True),
    }
    Recipe = TrainLlmRecipe

    @classmethod
    def check(cls, recipe: TrainLlmRecipe, inputs: Inputs) -> None:
        super().check(recipe, inputs)
        check_source_of_tokens("llm", recipe.model, inputs)
        check_vocabulary_size("model", recipe.model, inputs)
        longest = getattr(recipe.model, "context", None)
        for label, text in inputs["text"].items():
            context = getattr(text.recipe, "context", None)
            if context is not None and longest is not None and context > longest:
                raise FoundryError(
                    f"text dataset {label!r} has rows of {context} tokens, the model's context is "
                    f"{longest}",
                    "raise model.context, or convert the text with a shorter context",
                )
        check_texts(inputs, cls.states(recipe, inputs))

    @classmethod
    def steps(cls, recipe: TrainLlmRecipe, fact: stage.Fact) -> int | None:
        if recipe.training.tokens is None:
            return super().steps(recipe, fact)
        context = fact("text", "context", "dataset.json")
        return None if context is None else text_steps(recipe.training, recipe.data, context)[0]

    @classmethod
    def states(cls, recipe: TrainLlmRecipe, inputs: Inputs) -> ModelFacts:
        return facts_of(inputs, "llm", recipe.model, None)

    @classmethod
    def fresh(cls, recipe: TrainLlmRecipe, inputs: Inputs) -> Collection[str]:
        known = inputs.get("llm") or getattr(recipe.model, "has_weights", False)
        return () if known else ("",)

    @staticmethod
    def training(ctx: stage.StageContext, world: "World") -> "Training":
        from foundry_core.training.stages.llm import language_training

        return language_training(ctx, world)

    @staticmethod
    def run(ctx: stage.StageContext) -> Mapping[str, float]:
        from foundry_core.training.launch import launch
        from foundry_core.training.stages.llm import train_language_model

        return launch(train_language_model, ctx)


STAGE = TrainLlm
