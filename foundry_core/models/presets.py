"""Architectures by name: `stage_configs/models/<name>.yaml`. Torch-free."""

from typing import Annotated

from pydantic import Field

from foundry_core.config.documents import CONFIG_ROOT, load_document
from foundry_core.config.suggest import nearest
from foundry_core.config.validation import validate
from foundry_core.errors import FoundryError
from foundry_core.models.config import ModelConfig, VisionConfig
from foundry_core.models.heads import HEADS
from foundry_core.pipeline.stage import Config

_Part = Annotated[ModelConfig | VisionConfig, Field(discriminator="kind")]
"""A preset of any other kind is an action head's."""


def preset_names() -> list[str]:
    """Sorted."""
    return sorted(path.stem for path in (CONFIG_ROOT / "models").glob("*.yaml"))


def preset_of_origin(name: str) -> Config | None:
    """The preset that describes a checkpoint of the hub; None where none does."""
    presets = map(load_preset, preset_names())
    return next((one for one in presets if name and getattr(one, "origin", None) == name), None)


def load_preset(name: str) -> Config:
    """The validated config of a model preset (its kind says which class)."""
    path = CONFIG_ROOT / "models" / f"{name}.yaml"
    if not path.is_file():
        raise FoundryError(f"there is no model preset {name!r}", nearest(name, preset_names()))
    document = load_document(path)
    kind = document.get("kind")
    part: Config = validate(
        HEADS.get(kind) if kind in HEADS.names() else _Part, document, str(path)
    )
    return part
