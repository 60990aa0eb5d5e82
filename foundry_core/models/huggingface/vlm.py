"""Whole transformers VLMs (AutoModelForImageTextToText) as backbones. How families of them differ
is in families.py, what a checkpoint says of its inputs in processor.py."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText

from foundry_core.data.robot.transform_config import PromptMarks
from foundry_core.errors import FoundryError
from foundry_core.models.config import HFVLMConfig, ImageNormalization
from foundry_core.models.huggingface.cache import HFKeyValues
from foundry_core.models.huggingface.checkpoint import local_folder, pretrained_tokenizer
from foundry_core.models.huggingface.families import FAMILIES, Sequences
from foundry_core.models.huggingface.language import HFDecoder, positions_of
from foundry_core.models.huggingface.load import resolve
from foundry_core.models.huggingface.processor import with_processor
from foundry_core.models.interfaces import Backbone, Prompts, Tap
from foundry_core.models.kv_cache import KeyValues
from foundry_core.models.layers import Visibility
from foundry_core.models.placeholders import check_image_tokens, on_host
from foundry_core.models.resample import resize
from foundry_core.models.sizes import required
from foundry_core.models.vision import normalize_images


class HFVLM(HFDecoder, Backbone):
    """A backbone over a transformers model."""

    def __init__(self, config: HFVLMConfig) -> None:
        folder = local_folder(config) if config.has_weights else None
        super().__init__(AutoModelForImageTextToText, config)
        kind = self.model.config.model_type
        if kind not in FAMILIES:
            raise FoundryError(
                f"hf_vlm: no adapter for model_type {kind!r}",
                f"supported: {', '.join(sorted(FAMILIES))}",
            )
        self._family = FAMILIES[kind]
        if folder is not None:
            tokenizer = pretrained_tokenizer(folder)
            config = with_processor(config, folder, self.model.config, tokenizer)
        self._config = config
        self._side = required(config, "image_size", config.image_size)

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
        return self._family.tokens_per_image(self.model.config, self._side)

    @property
    def image_token_id(self) -> int:
        return self.model.config.image_token_id

    @property
    def marks(self) -> PromptMarks:
        return self._config.marks or super().marks

    def hidden(
        self,
        images: Tensor | None,
        tokens: Tensor,
        token_mask: Tensor | None = None,
        prompt: Tensor | None = None,
    ) -> Tensor:
        if images is None or images.shape[1] == 0:
            spans = prompt.long() if self._family.both_ways and prompt is not None else None
            return self.hidden_text(tokens, Visibility(keys=token_mask, spans=spans))
        if on_host(tokens):
            check_image_tokens(tokens, self.image_token_id, images.shape[1], self.tokens_per_image)
        if token_mask is None:
            token_mask = torch.ones_like(tokens, dtype=torch.bool)
        output = self.model.model(
            input_ids=tokens,
            attention_mask=token_mask.long(),
            use_cache=False,
            **self.inputs(images, tokens, token_mask, prompt),
        )
        return output.last_hidden_state

    def prefill(self, prompts: Prompts, room: int) -> tuple[Tensor, KeyValues]:
        images, tokens, lengths = prompts.images, prompts.tokens, prompts.lengths
        if images is None or images.shape[1] == 0:
            spans = prompts.mask.long() if self._family.both_ways else None
            return self.prefill_embeddings(
                self.embed(tokens), lengths, room, Visibility(spans=spans)
            )
        if on_host(tokens):
            check_image_tokens(tokens, self.image_token_id, images.shape[1], self.tokens_per_image)
        length = tokens.shape[1]
        cache = HFKeyValues(self.settings, lengths, length, room)
        filled = cache.mask[:, :length]
        tokens = cache.shift.left(tokens)
        inputs = {"position_ids": positions_of(filled)} | self.inputs(
            images, tokens, filled, prompt=filled
        )
        output = self.model.model(
            input_ids=tokens,
            attention_mask=filled.long(),
            past_key_values=cache.cache,
            use_cache=True,
            **inputs,
        )
        # Of several dimensions text goes on after the largest.
        cache.next_positions = inputs["position_ids"][..., -1].reshape(-1, len(tokens)).amax(0) + 1
        return output.last_hidden_state[:, -1], cache

    def hidden_text(self, tokens: Tensor, visible: Visibility) -> Tensor:
        return self.decode(self.embed(tokens), visible)

    def inputs(
        self, images: Tensor, tokens: Tensor, token_mask: Tensor, prompt: Tensor | None
    ) -> dict[str, Tensor]:
        """The keywords of the transformers model, besides tokens and their mask."""
        sequences = Sequences(tokens=tokens, mask=token_mask, prompt=prompt)
        return self._family.inputs(self.model.config, self._pixels(images), sequences)

    def _pixels(self, images: Tensor) -> Tensor:
        """uint8 [B,N,3,H,W] → float32 [B,N,3,side,side], as the model's processor makes them."""
        config = self._config
        resized = resize(images.flatten(0, 1), self._side, config.resample or "bicubic")
        pixels = normalize_images(resized, config.normalization or ImageNormalization())
        return pixels.unflatten(0, images.shape[:2])

    def features(
        self,
        images: Tensor | None,
        tokens: Tensor,
        token_mask: Tensor | None,
        tap: Tap,
        prompt: Tensor | None = None,
    ) -> Tensor:
        return self.tap_during(lambda: self.hidden(images, tokens, token_mask, prompt=prompt), tap)
