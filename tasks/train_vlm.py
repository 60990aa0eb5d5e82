"""Captioned images on top of a language model → a vision-language model."""

from collections.abc import Mapping
from typing import ClassVar

from foundry_core.data.loading.config import DataConfig
from foundry_core.models.config import VLMConfig
from foundry_core.pipeline import stage
from foundry_core.training.config import TrainingConfig
from foundry_core.training.recipes import (
    Inputs,
    ModelFacts,
    TrainStage,
    check_captions,
    check_source_of_tokens,
    check_texts,
    facts_of,
)


class TrainVlmRecipe(stage.Recipe):
    model: VLMConfig
    data: DataConfig
    training: TrainingConfig
    frozen: tuple[str, ...] = ()
    lr_scale: dict[str, float] = {}


class TrainVlm(TrainStage):
    kind = "train_vlm"
    parts = ("language", "vision")
    output = stage.ArtifactType.VISION_LANGUAGE_MODEL
    inputs: ClassVar[Mapping[str, stage.Slot]] = {
        "llm": stage.slot(stage.ArtifactType.LANGUAGE_MODEL, optional=True),
        "captions": stage.slot(stage.ArtifactType.CAPTION_SHARDS, many=True),
        "text": stage.slot(stage.ArtifactType.TEXT_SHARDS, many=True, optional=True),
        "tokenizer": stage.slot(stage.ArtifactType.TOKENIZER, optional=True),
    }
    Recipe = TrainVlmRecipe

    @classmethod
    def check(cls, recipe: TrainVlmRecipe, inputs: Inputs) -> None:
        super().check(recipe, inputs)
        check_source_of_tokens("llm", recipe.model.language, inputs)
        facts = cls.states(recipe, inputs)
        check_texts(inputs, facts)
        check_captions(recipe, inputs, facts)

    @classmethod
    def states(cls, recipe: TrainVlmRecipe, inputs: Inputs) -> ModelFacts:
        return facts_of(inputs, "llm", recipe.model.language, recipe.model.image_size)

    @staticmethod
    def run(ctx: stage.StageContext) -> Mapping[str, float]:
        from foundry_core.training.launch import launch
        from foundry_core.training.stages.vlm import train_vision_language_model

        return launch(train_vision_language_model, ctx)


STAGE = TrainVlm
