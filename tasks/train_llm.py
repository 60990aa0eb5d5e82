"""Packed text → a language model from scratch."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from foundry_core.data.loading.config import DataConfig, TextData
from foundry_core.errors import FoundryError
from foundry_core.models.config import TransformerConfig
from foundry_core.pipeline import stage
from foundry_core.training.config import Inputs, TrainingConfig, TrainResources, labels_of

if TYPE_CHECKING:
    from foundry_core.training.distributed import World


class TrainLlmRecipe(stage.Recipe):
    model: TransformerConfig
    data: DataConfig = DataConfig(text=TextData())
    training: TrainingConfig


class TrainLlm(stage.Stage):
    kind = "train_llm"
    output = stage.ArtifactType.LANGUAGE_MODEL
    code = "1"
    inputs: ClassVar[Mapping[str, stage.Slot]] = {
        "text": stage.slot(stage.ArtifactType.TEXT_SHARDS, many=True),
        "tokenizer": stage.slot(stage.ArtifactType.TOKENIZER),
    }
    Recipe = TrainLlmRecipe
    Resources = TrainResources

    @classmethod
    def check(cls, recipe: TrainLlmRecipe, inputs: Inputs) -> None:
        recipe.data.check_labels(labels_of(inputs))
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

    @staticmethod
    def run(ctx: stage.StageContext) -> Mapping[str, float]:
        from foundry_core.training.launch import launch

        return launch(_work, ctx)


def _work(ctx: stage.StageContext, world: "World") -> Mapping[str, float]:
    from foundry_core.training.stages.job import job_of
    from foundry_core.training.stages.llm import train_language_model

    return train_language_model(job_of(ctx, world), ctx.recipe.model, ctx.input("tokenizer").path)


STAGE = TrainLlm
