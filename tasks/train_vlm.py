"""Captioned images → a vision-language model, on a language model or on from a VLM."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from foundry_core.data.loading.config import DataConfig
from foundry_core.data.robot.transform_config import IMAGE
from foundry_core.errors import FoundryError
from foundry_core.models.config import BackboneConfig, VLMConfig, by_kind
from foundry_core.pipeline import stage
from foundry_core.training.config import TrainingConfig
from foundry_core.training.recipes import (
    FreshAdapters,
    Frozen,
    Inputs,
    LrScale,
    ModelFacts,
    TrainStage,
    check_captions,
    check_source_of_tokens,
    check_texts,
    check_vocabulary_size,
    facts_of,
    image_size_of,
)

if TYPE_CHECKING:
    from foundry_core.training.distributed import World
    from foundry_core.training.stages.job import Training


class TrainVlmRecipe(stage.Recipe):
    model: Annotated[BackboneConfig | None, by_kind("vlm")] = Field(
        None, description="null: the upstream VLM's"
    )
    data: DataConfig = Field(description="what a batch holds")
    training: TrainingConfig = Field(description="budget, optimizer, schedule and precision")
    lora: FreshAdapters = None
    frozen: Frozen = ()
    lr_scale: LrScale = {}


class TrainVlm(TrainStage):
    kind = "train_vlm"
    code = "2"
    parts = ("language", "vision")
    output = stage.ArtifactType.VISION_LANGUAGE_MODEL
    inputs: ClassVar[Mapping[str, stage.Slot]] = {
        "llm": stage.slot(stage.ArtifactType.LANGUAGE_MODEL, optional=True),
        "vlm": stage.slot(stage.ArtifactType.VISION_LANGUAGE_MODEL, optional=True),
        "captions": stage.slot(stage.ArtifactType.CAPTION_SHARDS, many=True),
        "text": stage.slot(stage.ArtifactType.TEXT_SHARDS, many=True, optional=True),
        "tokenizer": stage.slot(stage.ArtifactType.TOKENIZER, optional=True),
    }
    Recipe = TrainVlmRecipe

    @classmethod
    def check(cls, recipe: TrainVlmRecipe, inputs: Inputs) -> None:
        super().check(recipe, inputs)
        _check_start(recipe, inputs)
        facts = cls.states(recipe, inputs)
        check_texts(inputs, facts)
        check_captions(recipe, inputs, facts)

    @classmethod
    def states(cls, recipe: TrainVlmRecipe, inputs: Inputs) -> ModelFacts:
        described = recipe.model
        if not isinstance(described, VLMConfig) or inputs.get("vlm"):
            added = () if inputs.get("vlm") else (IMAGE,)
            return facts_of(inputs, "vlm", described, image_size_of(described), *added)
        facts = facts_of(inputs, "llm", described.language, described.image_size, IMAGE)
        return replace(facts, model=described.model_copy(update={"language": facts.model}))

    @classmethod
    def fresh(cls, recipe: TrainVlmRecipe, inputs: Inputs) -> Collection[str]:
        described = recipe.model
        if inputs.get("vlm") or described is None:
            return ()
        if not isinstance(described, VLMConfig):
            return () if getattr(described, "has_weights", False) else ("",)
        parts = {"vision": described.vision, "language": described.language}
        known = {name for name, part in parts.items() if getattr(part, "has_weights", False)}
        known |= {"language"} if inputs.get("llm") else set()
        return tuple(name for name in ("vision", "projector", "language") if name not in known)

    @staticmethod
    def training(ctx: stage.StageContext, world: "World") -> "Training":
        from foundry_core.training.stages.vlm import vision_language_training

        return vision_language_training(ctx, world)

    @staticmethod
    def run(ctx: stage.StageContext) -> Mapping[str, float]:
        from foundry_core.training.launch import launch
        from foundry_core.training.stages.vlm import train_vision_language_model

        return launch(train_vision_language_model, ctx)


def _check_start(recipe: TrainVlmRecipe, inputs: Inputs) -> None:
    described = recipe.model
    if inputs.get("llm") and (inputs.get("vlm") or not isinstance(described, VLMConfig)):
        raise FoundryError(
            "the input 'llm' is the language part of a `kind: vlm` model, which is not what is "
            "described",
            "remove the input 'llm', or describe vision and projector in `model`",
        )
    if isinstance(described, VLMConfig) and not inputs.get("vlm"):
        check_source_of_tokens("llm", described.language, inputs)
        check_vocabulary_size("model.language", described.language, inputs, IMAGE)
    else:
        check_source_of_tokens("vlm", described, inputs)


STAGE = TrainVlm
