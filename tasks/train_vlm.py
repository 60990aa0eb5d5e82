"""Captioned images on top of a language model → a vision-language model."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from foundry_core.data.loading.config import DataConfig
from foundry_core.models.config import VLMConfig, weight_sources
from foundry_core.pipeline import stage
from foundry_core.training.config import (
    Inputs,
    TrainingConfig,
    TrainResources,
    check_source_of_tokens,
    labels_of,
)

if TYPE_CHECKING:
    from foundry_core.training.distributed import World


class TrainVlmRecipe(stage.Recipe):
    model: VLMConfig
    data: DataConfig
    training: TrainingConfig
    frozen: tuple[str, ...] = ()
    lr_scale: dict[str, float] = {}


class TrainVlm(stage.Stage):
    kind = "train_vlm"
    output = stage.ArtifactType.VISION_LANGUAGE_MODEL
    code = "1"
    inputs: ClassVar[Mapping[str, stage.Slot]] = {
        "llm": stage.slot(stage.ArtifactType.LANGUAGE_MODEL, optional=True),
        "captions": stage.slot(stage.ArtifactType.CAPTION_SHARDS, many=True),
        "text": stage.slot(stage.ArtifactType.TEXT_SHARDS, many=True, optional=True),
        "tokenizer": stage.slot(stage.ArtifactType.TOKENIZER, optional=True),
    }
    Recipe = TrainVlmRecipe
    Resources = TrainResources

    @classmethod
    def sources(cls, recipe: TrainVlmRecipe) -> Mapping[str, str]:
        return weight_sources(recipe.model)

    @classmethod
    def check(cls, recipe: TrainVlmRecipe, inputs: Inputs) -> None:
        recipe.data.check_labels(labels_of(inputs))
        check_source_of_tokens("llm", recipe.model.language, inputs)

    @staticmethod
    def run(ctx: stage.StageContext) -> Mapping[str, float]:
        from foundry_core.training.launch import launch

        return launch(_work, ctx)


def _work(ctx: stage.StageContext, world: "World") -> Mapping[str, float]:
    from foundry_core.training.stages.job import job_of, optional_path
    from foundry_core.training.stages.vlm import train_vision_language_model

    return train_vision_language_model(
        job_of(ctx, world),
        ctx.recipe.model,
        optional_path(ctx, "llm"),
        optional_path(ctx, "tokenizer"),
    )


STAGE = TrainVlm
