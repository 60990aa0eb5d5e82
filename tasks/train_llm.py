"""Packed text → a language model from scratch."""

from collections.abc import Mapping
from typing import ClassVar

from foundry_core.data.loading.config import DataConfig, TextData
from foundry_core.errors import FoundryError
from foundry_core.models.config import TransformerConfig
from foundry_core.pipeline import stage
from foundry_core.training.config import TrainingConfig
from foundry_core.training.recipes import Inputs, ModelFacts, TrainStage, check_texts, facts_of


class TrainLlmRecipe(stage.Recipe):
    model: TransformerConfig
    data: DataConfig = DataConfig(text=TextData())
    training: TrainingConfig


class TrainLlm(TrainStage):
    kind = "train_llm"
    parts = ("language",)
    output = stage.ArtifactType.LANGUAGE_MODEL
    inputs: ClassVar[Mapping[str, stage.Slot]] = {
        "text": stage.slot(stage.ArtifactType.TEXT_SHARDS, many=True),
        "tokenizer": stage.slot(stage.ArtifactType.TOKENIZER),
    }
    Recipe = TrainLlmRecipe

    @classmethod
    def check(cls, recipe: TrainLlmRecipe, inputs: Inputs) -> None:
        super().check(recipe, inputs)
        if recipe.model.vocab_size is not None:
            raise FoundryError(
                f"model.vocab_size = {recipe.model.vocab_size}: it follows from the tokenizer",
                "leave it out, and set the tokenizer stage's vocab_size",
            )
        for label, text in inputs["text"].items():
            context = getattr(text.recipe, "context", None)
            if context is not None and context > recipe.model.context:
                raise FoundryError(
                    f"text dataset {label!r} has rows of {context} tokens, the model's context is "
                    f"{recipe.model.context}",
                    "raise model.context, or convert the text with a shorter context",
                )

        check_texts(inputs, cls.states(recipe, inputs))

    @classmethod
    def states(cls, recipe: TrainLlmRecipe, inputs: Inputs) -> ModelFacts:
        return facts_of(inputs, "", recipe.model, None)

    @staticmethod
    def run(ctx: stage.StageContext) -> Mapping[str, float]:
        from foundry_core.training.launch import launch
        from foundry_core.training.stages.llm import train_language_model

        return launch(train_language_model, ctx)


STAGE = TrainLlm
