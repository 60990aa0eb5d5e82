"""Whole transformers VLMs (AutoModelForImageTextToText) as backbones.

What differs between families is in families.py; everything else is the text stack's business.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText

from foundry_core.errors import FoundryError
from foundry_core.models.config.vlm import HFVLMConfig
from foundry_core.models.huggingface.decoder import HFDecoder
from foundry_core.models.huggingface.families import FAMILIES
from foundry_core.models.huggingface.load import load_or_build, resolve
from foundry_core.models.images import normalize_images
from foundry_core.models.interfaces import Backbone
from foundry_core.models.placeholders import check_image_tokens


class HFVLM(Backbone):
    """A backbone over a transformers model."""

    language: HFDecoder

    def __init__(self, config: HFVLMConfig) -> None:
        super().__init__()
        self.model = load_or_build(AutoModelForImageTextToText, config)
        self._settings: Any = self.model.config
        kind = self._settings.model_type
        if kind not in FAMILIES:
            raise FoundryError(
                f"hf_vlm: no adapter for model_type {kind!r}",
                f"supported: {', '.join(sorted(FAMILIES))}",
            )
        self._family = FAMILIES[kind]
        inner: Any = self.model.model
        text = inner.text_model if hasattr(inner, "text_model") else inner.language_model
        self.language = HFDecoder(self.model, text)
        self._config = config
        if config.vocab_size is not None:
            self.resize_vocabulary(config.vocab_size)

    @property
    def config(self) -> HFVLMConfig:
        return resolve(self._config, self.model, vocab_size=self.vocab_size)

    @property
    def dim(self) -> int:
        return self.language.dim

    @property
    def text_layers(self) -> nn.ModuleList:
        return self.language.text.layers

    @property
    def vocab_size(self) -> int:
        return self.language.vocab_size

    @property
    def tokens_per_image(self) -> int:
        return self._family.tokens_per_image(self._settings, self._config.image_size)

    @property
    def image_token_id(self) -> int:
        return self._settings.image_token_id

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
            hidden = self.language(
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
        inner: Any = self.model.model
        output = inner(
            input_ids=tokens,
            attention_mask=token_mask.long(),
            use_cache=False,
            **self._family.inputs(self._settings, pixels, tokens, token_mask),
        )
        return output.last_hidden_state

    def logits(self, hidden: Tensor) -> Tensor:
        return self.language.logits(hidden)

    def next_token_sums(
        self, hidden: Tensor, targets: Tensor, z_loss: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        return self.language.next_token_sums(hidden, targets, z_loss)

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
        def run() -> None:
            self.forward(images, tokens, token_mask, return_hidden=True)

        return self.language.tap(run, positions, layers=layers, norm=norm)

    def resize_vocabulary(self, vocab_size: int, used: int | None = None) -> None:
        self.language.resize_vocabulary(vocab_size, used)
