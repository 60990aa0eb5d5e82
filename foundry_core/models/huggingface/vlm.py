"""Whole transformers VLMs (AutoModelForImageTextToText) as backbones.

Families differ in how pixels enter and how many tokens an image becomes; everything else is the
text stack's business. A family is two small functions in the table at the end.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText

from foundry_core.errors import FoundryError
from foundry_core.models.config import HFVLMConfig
from foundry_core.models.huggingface.backbones import HFDecoder
from foundry_core.models.huggingface.load import load_or_build, resolve
from foundry_core.models.placeholders import check_image_tokens
from foundry_core.models.vision import normalize_images

Inputs = dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Family:
    """inputs(settings, pixels [B,N,3,H,W] normalised, tokens [B,T], token_mask [B,T]) → the
    model's keywords."""

    tokens_per_image: Callable[[Any, int], int]
    inputs: Callable[[Any, Tensor, Tensor, Tensor], Inputs]


class HFVLM(nn.Module):
    """The interface of VLM over a transformers model."""

    def __init__(self, config: HFVLMConfig) -> None:
        super().__init__()
        self.model = load_or_build(AutoModelForImageTextToText, config)
        kind = self.model.config.model_type
        if kind not in FAMILIES:
            raise FoundryError(
                f"hf_vlm: no adapter for model_type {kind!r}",
                f"supported: {', '.join(sorted(FAMILIES))}",
            )
        self._family = FAMILIES[kind]
        inner = self.model.model
        text = inner.text_model if hasattr(inner, "text_model") else inner.language_model
        self._decoder = HFDecoder(self.model, text)
        self._config = config
        if config.vocab_size is not None:
            self.resize_vocabulary(config.vocab_size)

    @property
    def config(self) -> HFVLMConfig:
        return resolve(self._config, self.model, vocab_size=self.vocab_size)

    @property
    def language(self) -> HFDecoder:
        """The text stack alone, for text batches."""
        return self._decoder

    @property
    def dim(self) -> int:
        return self._decoder.dim

    @property
    def text_layers(self) -> nn.ModuleList:
        return self._decoder.text.layers

    @property
    def n_layers(self) -> int:
        return self._decoder.n_layers

    @property
    def vocab_size(self) -> int:
        return self._decoder.vocab_size

    @property
    def tokens_per_image(self) -> int:
        return self._family.tokens_per_image(self.model.config, self._config.image_size)

    @property
    def image_token_id(self) -> int:
        return self.model.config.image_token_id

    def forward(
        self,
        images: Tensor | None,
        tokens: Tensor,
        token_mask: Tensor | None = None,
        *,
        segments: Tensor | None = None,
        return_hidden: bool = False,
    ) -> Tensor:
        """As VLM.forward."""
        if images is None or images.shape[1] == 0:
            hidden = self._decoder(
                tokens, segments=segments, attention_mask=token_mask, return_hidden=True
            )
        elif segments is not None:
            raise FoundryError("hf_vlm backbones take packed documents as text only")
        else:
            hidden = self._run(images, tokens, token_mask)
        return hidden if return_hidden else self.logits(hidden)

    def _run(self, images: Tensor, tokens: Tensor, token_mask: Tensor | None) -> Tensor:
        if tokens.device.type == "cpu":
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

    def logits(self, hidden: Tensor) -> Tensor:
        return self._decoder.logits(hidden)

    def next_token_sums(
        self, hidden: Tensor, targets: Tensor, z_loss: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        return self._decoder.next_token_sums(hidden, targets, z_loss)

    def features(
        self,
        images: Tensor | None,
        tokens: Tensor,
        token_mask: Tensor | None = None,
        *,
        positions: Tensor,
        layers: int,
        norm: str,
    ) -> Tensor:
        """As VLM.features."""

        def run() -> None:
            self.forward(images, tokens, token_mask, return_hidden=True)

        return self._decoder.tap(run, positions, layers=layers, norm=norm)

    def resize_vocabulary(self, vocab_size: int, used: int | None = None) -> None:
        self._decoder.resize_vocabulary(vocab_size, used)


def _patch_grid(settings: Any, image_size: int) -> int:
    return image_size // settings.vision_config.patch_size


def _idefics_tokens(settings: Any, image_size: int) -> int:
    return (_patch_grid(settings, image_size) // settings.scale_factor) ** 2


def _idefics_inputs(settings: Any, pixels: Tensor, tokens: Tensor, token_mask: Tensor) -> Inputs:
    return {"pixel_values": pixels}


def _qwen_tokens(settings: Any, image_size: int) -> int:
    return (_patch_grid(settings, image_size) // settings.vision_config.spatial_merge_size) ** 2


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


def _paligemma_tokens(settings: Any, image_size: int) -> int:
    return _patch_grid(settings, image_size) ** 2


def _gemma_inputs(settings: Any, pixels: Tensor, tokens: Tensor, token_mask: Tensor) -> Inputs:
    """token_type_ids mark image tokens, which see each other both ways in Gemma 3. PaliGemma reads
    0 as "prefix, attended both ways"; 1 everywhere keeps text causal, as in training."""
    images = {"pixel_values": pixels.flatten(0, 1)}
    is_image = (tokens == settings.image_token_id).long()
    if settings.model_type == "paligemma":
        return {**images, "token_type_ids": 1 - is_image}
    return {**images, "token_type_ids": is_image}


def _gemma3_tokens(settings: Any, image_size: int) -> int:
    return settings.mm_tokens_per_image


_IDEFICS = Family(tokens_per_image=_idefics_tokens, inputs=_idefics_inputs)
_QWEN = Family(tokens_per_image=_qwen_tokens, inputs=_qwen_inputs)
FAMILIES = {
    "idefics3": _IDEFICS,
    "smolvlm": _IDEFICS,
    "qwen2_vl": _QWEN,
    "qwen2_5_vl": _QWEN,
    "qwen3_vl": _QWEN,
    "paligemma": Family(tokens_per_image=_paligemma_tokens, inputs=_gemma_inputs),
    "gemma3": Family(tokens_per_image=_gemma3_tokens, inputs=_gemma_inputs),
}
