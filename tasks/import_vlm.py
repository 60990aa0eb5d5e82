"""A vision-language model of the Hugging Face hub, or of a folder → a vision-language model,
tokenizer, processor settings and chat template included."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from foundry_core.data.robot.transform_config import PromptMarks
from foundry_core.models.config import (
    HFVLMConfig,
    ImageNormalization,
    Pretrained,
    weight_sources,
)
from foundry_core.models.sizes import positive
from foundry_core.pipeline import stage
from foundry_core.training.recipes import Inputs, ModelFacts


class ImportVlmRecipe(Pretrained, stage.Recipe):
    """What is null is as the checkpoint's processor says."""

    image_size: int | None = positive(None, description="side of the square images it looks at")
    normalization: ImageNormalization | None = Field(
        None, description="of the pixels; null: as the checkpoint's processor says"
    )
    resample: Literal["bilinear", "bicubic", "lanczos"] | None = Field(
        None,
        description="filter that brings pictures to image_size; null: as the checkpoint's "
        "processor says",
    )
    marks: PromptMarks | None = Field(None, description="tokens around images and instruction")


class ImportVlm(stage.Stage):
    kind = "import_vlm"
    code = "1"
    output = stage.ArtifactType.VISION_LANGUAGE_MODEL
    seeded = False
    Recipe = ImportVlmRecipe

    @classmethod
    def sources(cls, recipe: ImportVlmRecipe) -> Mapping[str, str]:
        return weight_sources(recipe, "recipe")

    @classmethod
    def states(cls, recipe: ImportVlmRecipe, inputs: Inputs) -> ModelFacts:
        return ModelFacts(model=HFVLMConfig(**recipe.model_dump()), own_tokenizer=True)

    @staticmethod
    def run(ctx: stage.StageContext) -> Mapping[str, Any]:
        from foundry_core.models.huggingface.pretrained import import_vlm

        described = HFVLMConfig(**ctx.recipe.model_dump())
        return import_vlm(described, ctx.out, ctx.scratch)


STAGE = ImportVlm
