"""Encoders of images and words that no language model joins: what small policies see through.

Legend: B batch, N images, p patches, d the encoder's width, T tokens.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from foundry_core.data.robot.transform_config import PromptMarks
from foundry_core.errors import FoundryError
from foundry_core.models.config import EncoderConfig, TransformerConfig
from foundry_core.models.interfaces import Observer, Tap, TextTower
from foundry_core.models.layers import Visibility, truncated_normal_
from foundry_core.models.sizes import required
from foundry_core.models.transformer import Transformer
from foundry_core.models.vision import build_vision


class TransformerText(TextTower):
    """A native decoder, read at the end of the text."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.decoder = Transformer(config)

    @property
    def config(self) -> TransformerConfig:
        return self.decoder.config

    @property
    def width(self) -> int:
        return self.decoder.dim

    def forward(self, tokens: Tensor, token_mask: Tensor | None, ends: Tensor) -> Tensor:
        tap = Tap(positions=ends, layers=1, norm="final")
        return self.decoder.tap(self.decoder.embed(tokens), tap, Visibility(keys=token_mask))


class Joined(nn.Module):
    """Brings what the towers say to one width, and tells images apart."""

    def __init__(self, config: EncoderConfig, images: int, text_width: int | None) -> None:
        super().__init__()
        self.vision_in = nn.Linear(config.vision.width, config.width)
        self.text_in = nn.Linear(text_width, config.width) if text_width else None
        self.images = nn.Parameter(torch.empty(images, config.width))
        # In place of words where none are read: a blind policy that is told nothing has one token.
        self.nothing = None if text_width else nn.Parameter(torch.empty(1, config.width))
        for linear in (self.vision_in, self.text_in):
            if linear is not None:
                truncated_normal_(linear.weight, linear.in_features**-0.5)
                nn.init.zeros_(linear.bias)
        for row in (self.images, self.nothing):
            if row is not None:
                truncated_normal_(row, config.width**-0.5)

    def of_images(self, patches: Tensor) -> Tensor:
        """[B,N,p,D_vision] → [B, N·p, d]."""
        return (self.vision_in(patches) + self.images[:, None]).flatten(1, 2)

    def of_words(self, words: Tensor | None, rows: int) -> Tensor:
        """[B,1,D_text] or None → [B,1,d]."""
        if words is None or self.text_in is None:
            assert self.nothing is not None
            return self.nothing.expand(rows, 1, -1)
        return self.text_in(words)


class Encoder(Observer):
    """A vision tower, and a text tower where the instruction is read."""

    needs_token_mask = False

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self._config = config
        self.vision = build_vision(config.vision)
        self.text = None if config.text is None else build_text(config.text)
        images = required(config, "images", config.images)
        self.joined = Joined(config, images, self.text.width if self.text else None)

    @property
    def config(self) -> EncoderConfig:
        text = self.text.config if self.text else None
        return self._config.model_copy(update={"vision": self.vision.config, "text": text})

    @property
    def parts(self) -> Mapping[str, Sequence[nn.Module]]:
        found: dict[str, Sequence[nn.Module]] = {
            "vision": [self.vision],
            "projector": [self.joined],
        }
        return {"language": [self.text], **found} if self.text else found

    @property
    def tokens_per_image(self) -> int:
        """None: images do not stand among words."""
        return 0

    @property
    def image_token_id(self) -> int:
        """No token is an image."""
        return -1

    @property
    def marks(self) -> PromptMarks:
        opening = self.text.opening if self.text else ()
        return PromptMarks(opening=opening, image=0)

    def features_dim(self, tap_layers: int) -> int:
        return self._config.width

    def features(
        self,
        images: Tensor | None,
        tokens: Tensor,
        token_mask: Tensor | None,
        tap: Tap,
        prompt: Tensor | None = None,
    ) -> Tensor:
        """[B, 1 + N·p, d]: the words, then the images. Of the tap the place of `<obs>` counts."""
        words = None if self.text is None else self.text(tokens, token_mask, tap.positions)
        found = self.joined.of_words(words, len(tokens))
        if images is None or images.shape[1] == 0:
            return found
        known = self.joined.images.shape[0]
        if images.shape[1] != known:
            raise FoundryError(
                f"an observation of {images.shape[1]} images, the encoder was made for {known}",
                "use the policy with the cameras that it was trained with",
            )
        patches = self.vision(images.flatten(0, 1)).unflatten(0, images.shape[:2])
        if self._config.pool == "mean":
            patches = patches.mean(dim=2, keepdim=True)
        seen = self.joined.of_images(patches)
        return torch.cat((found.to(seen.dtype), seen), dim=1)


def build_text(config: object) -> TextTower:
    """With fresh weights, or those that a transformers config names."""
    if isinstance(config, TransformerConfig):
        return TransformerText(config)
    from foundry_core.models.config import HFTextConfig
    from foundry_core.models.huggingface.text import HFText

    assert isinstance(config, HFTextConfig)
    return HFText(config)
