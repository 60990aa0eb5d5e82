"""Transformers vision towers behind the native tower's interface."""

import inspect
from typing import Any

from torch import Tensor
from transformers import AutoModel, PreTrainedModel

from foundry_core.errors import FoundryError
from foundry_core.models.config import HFVisionConfig
from foundry_core.models.huggingface.load import load_or_build, resolve
from foundry_core.models.interfaces import VisionTower
from foundry_core.models.vision import normalize_images


class HFVision(VisionTower):
    """The patch tokens of a transformers vision tower (class and register tokens dropped)."""

    def __init__(self, config: HFVisionConfig) -> None:
        super().__init__()
        tower = load_or_build(AutoModel, config)
        self.tower: PreTrainedModel = getattr(tower, "vision_model", tower)
        self._config = config
        settings: Any = self.tower.config
        if settings.hidden_size != config.width:
            raise FoundryError(
                f"vision.width is {config.width}, the tower's hidden size {settings.hidden_size}",
                f"set vision.width to {settings.hidden_size}",
            )
        self._options: dict[str, bool] = {}
        accepted = inspect.signature(self.tower.forward).parameters
        if config.image_size != settings.image_size and "interpolate_pos_encoding" in accepted:
            self._options["interpolate_pos_encoding"] = True

    @property
    def config(self) -> HFVisionConfig:
        return resolve(self._config, self.tower)

    def forward(self, images: Tensor) -> Tensor:
        """uint8 [n,3,H,W] → [n, patches, D]."""
        pixels = normalize_images(images, self._config.normalization)
        tokens = self.tower(pixel_values=pixels, **self._options).last_hidden_state
        patches = self._config.grid**2
        if tokens.shape[1] < patches:
            raise FoundryError(
                f"the vision tower made {tokens.shape[1]} tokens of a {self._config.image_size} px "
                f"image, expected {patches} patches of {self._config.patch_size} px"
            )
        return tokens[:, -patches:]
