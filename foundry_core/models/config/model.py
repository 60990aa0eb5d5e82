"""Whatever can be saved as a model of its own."""

from typing import Annotated

from pydantic import Field

from foundry_core.models.config.language import HFLanguageConfig, TransformerConfig
from foundry_core.models.config.vla import VLAConfig
from foundry_core.models.config.vlm import HFVLMConfig, VLMConfig

ModelConfig = Annotated[
    TransformerConfig | HFLanguageConfig | VLMConfig | HFVLMConfig | VLAConfig,
    Field(discriminator="kind"),
]
