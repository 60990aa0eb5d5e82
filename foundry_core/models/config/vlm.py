"""Vision-language models: backbones of policies."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from foundry_core.models.config.huggingface import HFConfig
from foundry_core.models.config.language import LanguageConfig
from foundry_core.models.config.sizes import check_multiple, positive
from foundry_core.models.config.vision import ImageNormalization, ProjectorConfig, VisionConfig
from foundry_core.pipeline.stage import Config


class VLMConfig(Config):
    """Vision tower + projector + language model. `language: null`: the upstream LLM's."""

    kind: Literal["vlm"] = "vlm"
    language: LanguageConfig | None = None
    vision: VisionConfig
    projector: ProjectorConfig = ProjectorConfig()
    image_attention: Literal["causal", "bidirectional"] = "causal"
    image_token_id: int | None = Field(None, ge=0, description="null: set by the stage")

    @model_validator(mode="after")
    def _grid(self) -> "VLMConfig":
        check_multiple(
            f"vision grid of {self.vision.grid}×{self.vision.grid} patches: side",
            self.vision.grid,
            "projector.pixel_shuffle",
            self.projector.pixel_shuffle,
        )
        return self

    @property
    def tokens_per_image(self) -> int:
        return (self.vision.grid // self.projector.pixel_shuffle) ** 2

    @property
    def image_size(self) -> int:
        return self.vision.image_size


class HFVLMConfig(HFConfig):
    """A whole transformers VLM (AutoModelForImageTextToText) as backbone."""

    kind: Literal["hf_vlm"] = "hf_vlm"
    image_size: int = positive(description="side of the square images it is fed")
    vocab_size: int | None = positive(None, description="null: as the checkpoint's")
    normalization: ImageNormalization = ImageNormalization()


BackboneConfig = Annotated[VLMConfig | HFVLMConfig, Field(discriminator="kind")]
