"""The vision-language model: vision tower, projector, language model."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Self

from torch import Tensor, nn

from foundry_core.errors import FoundryError
from foundry_core.models.config import HFLanguageConfig, LanguageConfig, VLMConfig
from foundry_core.models.heads.base import KeyValueShape
from foundry_core.models.interfaces import Backbone, LanguageModel, Prompts, Tap
from foundry_core.models.kv_cache import KeyValues
from foundry_core.models.layers import Visibility
from foundry_core.models.placeholders import (
    check_image_tokens,
    fill_placeholders,
    image_spans,
    on_host,
)
from foundry_core.models.sizes import kind_of, required, unresolved
from foundry_core.models.transformer import Transformer
from foundry_core.models.vision import Projector, build_vision
from foundry_core.pipeline.stage import Config


def build_language(config: LanguageConfig) -> LanguageModel:
    """With fresh weights, or those that a transformers config names."""
    if isinstance(config, HFLanguageConfig):
        from foundry_core.models.huggingface.language import HFLanguage

        return HFLanguage(config)
    return Transformer(config)


class VLM(Backbone):
    """Images are spliced into the token sequence at every `image_token_id`.

    Every placeholder has been expanded beforehand to `config.tokens_per_image` copies.
    """

    needs_token_mask = False
    language: LanguageModel

    def __init__(self, config: VLMConfig, language: LanguageModel | None = None) -> None:
        super().__init__()
        self._image_token_id = required(config, "image_token_id", config.image_token_id)
        if language is None:
            if config.language is None:
                raise unresolved(config, "language")
            language = build_language(config.language)
        self.language = language
        self.vision = build_vision(config.vision)
        self.projector = Projector(config.projector, config.vision.width, self.language.dim)
        self._config = config

    @classmethod
    def from_language_model(cls, config: VLMConfig, language: LanguageModel) -> Self:
        """A VLM on top of a trained language model, whose vocabulary has room for the image token.

        config.language may be null; given, it must describe the same architecture.
        """
        if config.language is not None:
            check_same_architecture("language", config.language, language.config)
        return cls(config.model_copy(update={"language": language.config}), language)

    @property
    def config(self) -> VLMConfig:
        return self._config.model_copy(
            update={"language": self.language.config, "vision": self.vision.config}
        )

    @property
    def dim(self) -> int:
        return self.language.dim

    @property
    def key_values(self) -> KeyValueShape:
        return self.language.key_values

    @property
    def text_layers(self) -> nn.ModuleList:
        return self.language.text_layers

    @property
    def vocab_size(self) -> int:
        return self.language.vocab_size

    @property
    def output_layer(self) -> tuple[Tensor, Tensor | None, float | None]:
        return self.language.output_layer

    @property
    def tokens_per_image(self) -> int:
        return self._config.tokens_per_image

    @property
    def image_token_id(self) -> int:
        return self._image_token_id

    def embed(self, images: Tensor | None, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """Embeddings [B,T,D] with the images in place, and bool [B,T] of their positions.

        On the CPU a wrong number of placeholders raises here; batches for a device are checked
        with `check_image_tokens` before they travel.
        """
        embeddings = self.language.embed(tokens)
        if images is None or images.shape[1] == 0:
            return embeddings, None
        if on_host(tokens):
            check_image_tokens(tokens, self.image_token_id, images.shape[1], self.tokens_per_image)
        is_image = tokens == self.image_token_id
        return fill_placeholders(embeddings, is_image, self._image_tokens(images)), is_image

    def _image_tokens(self, images: Tensor) -> Tensor:
        """[B,N,3,H,W] → [B, N·tokens per image, D]."""
        found = self.projector(self.vision(images.flatten(0, 1)))
        return found.reshape(images.shape[0], -1, found.shape[-1])

    @property
    def parts(self) -> Mapping[str, Sequence[nn.Module]]:
        named = {"language": self.language, "vision": self.vision, "projector": self.projector}
        return {name: [module] for name, module in named.items()}

    def hidden(
        self,
        images: Tensor | None,
        tokens: Tensor,
        token_mask: Tensor | None = None,
        prompt: Tensor | None = None,
    ) -> Tensor:
        embeddings, is_image = self.embed(images, tokens)
        visible = Visibility(keys=token_mask, spans=self._spans(is_image))
        return self.language.hidden(embeddings, visible)

    def hidden_text(self, tokens: Tensor, visible: Visibility) -> Tensor:
        return self.language.hidden(self.language.embed(tokens), visible)

    @property
    def packs(self) -> bool:
        return isinstance(self.language, Transformer)

    def hidden_packed(self, images: Tensor, tokens: Tensor, visible: Visibility) -> Tensor:
        """As Backbone's. Positions are rotary, hence relative: where in a row a document begins
        changes nothing in it."""
        if not self.packs:
            return super().hidden_packed(images, tokens, visible)
        embeddings = self.language.embed(tokens)
        is_image = tokens == self.image_token_id
        flat = (x.flatten(0, 1)[None] for x in (embeddings, is_image, self._image_tokens(images)))
        embeddings = fill_placeholders(*flat).view_as(embeddings)
        return self.language.hidden(embeddings, replace(visible, spans=self._spans(is_image)))

    @property
    def context(self) -> int | None:
        return self.language.context

    def prefill(self, prompts: Prompts, room: int) -> tuple[Tensor, KeyValues]:
        embeddings, is_image = self.embed(prompts.images, prompts.tokens)
        visible = Visibility(spans=self._spans(is_image))
        return self.language.prefill_embeddings(embeddings, prompts.lengths, room, visible)

    def step(self, tokens: Tensor, cache: KeyValues) -> Tensor:
        return self.language.step(tokens, cache)

    def features(
        self,
        images: Tensor | None,
        tokens: Tensor,
        token_mask: Tensor | None,
        tap: Tap,
        prompt: Tensor | None = None,
    ) -> Tensor:
        embeddings, is_image = self.embed(images, tokens)
        visible = Visibility(keys=token_mask, spans=self._spans(is_image))
        return self.language.tap(embeddings, tap, visible)

    def _spans(self, is_image: Tensor | None) -> Tensor | None:
        if is_image is None or self._config.image_attention == "causal":
            return None
        return image_spans(is_image, self.tokens_per_image)

    def resize_vocabulary(self, vocab_size: int, used: int) -> None:
        self.language.resize_vocabulary(vocab_size, used)


def check_same_architecture(name: str, wanted: Config, found: Config) -> None:
    """What the recipe states of an upstream model must be the upstream's, but for the
    vocabulary."""
    if type(wanted) is not type(found):
        raise FoundryError(
            f"{name}.kind: the recipe says {kind_of(wanted)!r}, the upstream model is "
            f"{kind_of(found)!r}"
        )
    ignore = ("vocab_size", "source", "revision", "path", "config", "origin", "image_token_id")
    # Where their weights lay is no difference either.
    a, b = wanted.model_dump(mode="json"), found.model_dump(mode="json")
    names = [name for name, value in a.items() if name not in ignore and value is not None]
    lines = [f"{n}: {a.get(n)!r} ≠ {b.get(n)!r}" for n in names if a.get(n) != b.get(n)]
    if lines:
        raise FoundryError(
            f"the recipe's {name} differs from the upstream model's: " + "; ".join(lines),
            f"leave {name} null to take the upstream model's",
        )


def check_vocabulary(*, tokenizer: tuple[str, int], model: tuple[str | None, int]) -> None:
    """(digest, size) of the tokenizer in use against those the model was trained with.

    A model may know more rows than the tokenizer (padding of the table), never fewer.
    """
    (digest, size), (model_digest, rows) = tokenizer, model
    if model_digest is not None and digest != model_digest:
        raise FoundryError(
            f"the model was trained with tokenizer {model_digest[:12]} ({rows} rows), the data "
            f"is encoded with {digest[:12]} ({size} tokens)",
            "convert the data with the model's tokenizer, or train the model on this one",
        )
    if rows < size:
        raise FoundryError(
            f"the model has {rows} vocabulary rows, the tokenizer has {size} tokens",
            "grow the model with resize_vocabulary",
        )
