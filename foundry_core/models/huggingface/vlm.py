"""Whole transformers VLMs (AutoModelForImageTextToText) as backbones.

How families of them differ (how pixels enter, how many tokens an image becomes) is two small
functions each, in the table FAMILIES.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText

from foundry_core.errors import FoundryError
from foundry_core.models.config import HFVLMConfig
from foundry_core.models.huggingface.language import HFDecoder
from foundry_core.models.huggingface.load import resolve
from foundry_core.models.interfaces import Backbone, Tap
from foundry_core.models.layers import Visibility
from foundry_core.models.placeholders import check_image_tokens, on_host
from foundry_core.models.vision import normalize_images

Inputs = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Family:
    """inputs(settings, pixels [B,N,3,H,W] normalised, tokens [B,T], token_mask [B,T]) → the
    model's keywords."""

    tokens_per_image: Callable[[Any, int], int]
    inputs: Callable[[Any, Tensor, Tensor, Tensor], Inputs]


def _square(settings: Any, image_size: int, merge: int = 1) -> int:
    """Tokens of an image whose patches are merged by merge × merge."""
    return (image_size // settings.vision_config.patch_size // merge) ** 2


def _qwen_inputs(settings: Any, pixels: Tensor, tokens: Tensor, token_mask: Tensor) -> Inputs:
    """Patches in merge-block order, each repeated over the temporal patch; and their grid."""
    vision = settings.vision_config
    patch, merge, frames = vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size
    images = pixels.flatten(0, 1)
    n, channels, height, _ = images.shape
    blocks = height // patch // merge
    x = images.view(n, channels, blocks, merge, patch, blocks, merge, patch)
    # → [n, block row, block column, row in block, column in block, channel, patch y, patch x]
    x = x.permute(0, 2, 5, 3, 6, 1, 4, 7)
    x = x[:, :, :, :, :, :, None].expand(*x.shape[:6], frames, patch, patch)
    grid = torch.tensor([[1, height // patch, height // patch]], device=pixels.device)
    return {
        "pixel_values": x.reshape(-1, channels * frames * patch * patch),
        "image_grid_thw": grid.expand(n, -1),
        "position_ids": mrope_positions(
            tokens == settings.image_token_id, token_mask, height // patch // merge
        ),
    }


def mrope_positions(is_image: Tensor, token_mask: Tensor, side: int) -> Tensor:
    """Qwen-VL's positions int64 [3,B,T] (time, row, column) for square images of side² tokens.

    Text counts on by one in all three; an image's tokens take its first position plus their row
    and column, and the text after it goes on `side` later. Transformers' own version copies the
    token types to the host at every step and takes adjacent images for one.
    """
    index = token_mask.long().cumsum(dim=1) - 1
    seen = is_image.long().cumsum(dim=1)
    within = torch.where(is_image, (seen - 1) % side**2, 0)
    images_before = torch.where(is_image, (seen - 1) // side**2, seen // side**2)
    start = index - within - images_before * (side**2 - side)
    positions = torch.stack((start, start + within // side, start + within % side))
    return positions.clamp_(min=0)


def _gemma_inputs(settings: Any, pixels: Tensor, tokens: Tensor, token_mask: Tensor) -> Inputs:
    """token_type_ids mark image tokens, which see each other both ways in Gemma 3. PaliGemma reads
    0 as "prefix, attended both ways"; 1 everywhere keeps text causal, as in training."""
    is_image = (tokens == settings.image_token_id).long()
    kinds = 1 - is_image if settings.model_type == "paligemma" else is_image
    return {"pixel_values": pixels.flatten(0, 1), "token_type_ids": kinds}


_IDEFICS = Family(
    tokens_per_image=lambda settings, size: _square(settings, size, settings.scale_factor),
    inputs=lambda settings, pixels, tokens, token_mask: {"pixel_values": pixels},
)
_QWEN = Family(
    tokens_per_image=lambda settings, size: _square(
        settings, size, settings.vision_config.spatial_merge_size
    ),
    inputs=_qwen_inputs,
)
FAMILIES = {
    "idefics3": _IDEFICS,
    "smolvlm": _IDEFICS,
    "qwen2_vl": _QWEN,
    "qwen2_5_vl": _QWEN,
    "qwen3_vl": _QWEN,
    "paligemma": Family(tokens_per_image=_square, inputs=_gemma_inputs),
    "gemma3": Family(
        tokens_per_image=lambda settings, size: settings.mm_tokens_per_image, inputs=_gemma_inputs
    ),
}


class HFVLM(HFDecoder, Backbone):
    """A backbone over a transformers model."""

    def __init__(self, config: HFVLMConfig) -> None:
        super().__init__(AutoModelForImageTextToText, config)
        self._config = config
        kind = self.model.config.model_type
        if kind not in FAMILIES:
            raise FoundryError(
                f"hf_vlm: no adapter for model_type {kind!r}",
                f"supported: {', '.join(sorted(FAMILIES))}",
            )
        self._family = FAMILIES[kind]

    @property
    def text(self) -> Any:
        inner = self.model.model
        return inner.text_model if hasattr(inner, "text_model") else inner.language_model

    @property
    def parts(self) -> Mapping[str, Sequence[nn.Module]]:
        """A merger inside the tower counts as vision."""
        tables = (self.model.get_input_embeddings(), self.model.get_output_embeddings())
        others = [(n, m) for n, m in self.model.model.named_children() if m is not self.text]
        return {
            "language": [self.text, *tables],
            "vision": [module for name, module in others if "vis" in name],
            "projector": [module for name, module in others if "vis" not in name],
        }

    @property
    def config(self) -> HFVLMConfig:
        return resolve(self._config, self.model, vocab_size=self.vocab_size)

    @property
    def tokens_per_image(self) -> int:
        return self._family.tokens_per_image(self.model.config, self._config.image_size)

    @property
    def image_token_id(self) -> int:
        return self.model.config.image_token_id

    def hidden(
        self,
        images: Tensor | None,
        tokens: Tensor,
        token_mask: Tensor | None = None,
    ) -> Tensor:
        if images is None or images.shape[1] == 0:
            return self.hidden_text(tokens, Visibility(keys=token_mask))
        if on_host(tokens):
            check_image_tokens(tokens, self.image_token_id, images.shape[1], self.tokens_per_image)
        pixels = normalize_images(images.flatten(0, 1), self._config.normalization)
        pixels = pixels.unflatten(0, images.shape[:2])
        if token_mask is None:
            token_mask = torch.ones_like(tokens, dtype=torch.bool)
        output = self.model.model(
            input_ids=tokens,
            attention_mask=token_mask.long(),
            use_cache=False,
            **self._family.inputs(self.model.config, pixels, tokens, token_mask),
        )
        return output.last_hidden_state

    def hidden_text(self, tokens: Tensor, visible: Visibility) -> Tensor:
        return self.decode(self.embed(tokens), visible)

    def features(
        self, images: Tensor | None, tokens: Tensor, token_mask: Tensor | None, tap: Tap
    ) -> Tensor:
        return self.tap_during(lambda: self.hidden(images, tokens, token_mask), tap)
