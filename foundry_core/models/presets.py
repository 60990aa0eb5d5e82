"""Architectures by name: `stage_configs/models/<name>.yaml`. Torch-free."""

from typing import Annotated

from pydantic import Field

from foundry_core.config.documents import CONFIG_ROOT, load_document
from foundry_core.config.validation import validate
from foundry_core.errors import FoundryError
from foundry_core.models.config import (
    Config,
    ConvViTConfig,
    DiffusionHeadConfig,
    FlowHeadConfig,
    HFLanguageConfig,
    HFVisionConfig,
    HFVLMConfig,
    RegressionHeadConfig,
    TransformerConfig,
    ViTConfig,
    VLAConfig,
    VLMConfig,
)

Preset = Annotated[
    TransformerConfig
    | HFLanguageConfig
    | ViTConfig
    | ConvViTConfig
    | HFVisionConfig
    | VLMConfig
    | HFVLMConfig
    | FlowHeadConfig
    | DiffusionHeadConfig
    | RegressionHeadConfig
    | VLAConfig,
    Field(discriminator="kind"),
]


def preset_names() -> list[str]:
    return sorted(path.stem for path in (CONFIG_ROOT / "models").glob("*.yaml"))


def load_preset(name: str) -> Config:
    """The validated config of a model preset (its kind says which class)."""
    path = CONFIG_ROOT / "models" / f"{name}.yaml"
    if not path.is_file():
        raise FoundryError(
            f"there is no model preset {name!r}", f"presets: {', '.join(preset_names())}"
        )
    return validate(Preset, load_document(path), str(path))
