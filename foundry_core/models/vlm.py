"""The vision-language model: vision tower, projector, language model."""

from typing import Self

from torch import Tensor, nn

from foundry_core.errors import FoundryError
from foundry_core.models.config.language import HFLanguageConfig, LanguageConfig
from foundry_core.models.config.sizes import differences, kind_of, required, unresolved
from foundry_core.models.config.vlm import VLMConfig
from foundry_core.models.interfaces import Backbone, LanguageModel
from foundry_core.models.placeholders import (
    check_image_tokens,
    fill_placeholders,
    image_spans,
)
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
        self.projector = Projector(config.projector, self.vision.width, self.language.dim)
        self._config = config

    @classmethod
    def from_language_model(
        cls, config: VLMConfig, language: LanguageModel, *, vocab_size: int | None = None
    ) -> Self:
        """A VLM on top of a trained language model, whose vocabulary grows to `vocab_size`.

        config.language may be null; given, it must describe the same architecture.
        """
        if config.language is not None:
            check_same_architecture("language", config.language, language.config)
        if vocab_size is not None:
            language.resize_vocabulary(vocab_size)
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
    def text_layers(self) -> nn.ModuleList:
        return self.language.text_layers

    @property
    def vocab_size(self) -> int:
        return self.language.vocab_size

    @property
    def tokens_per_image(self) -> int:
        return self._config.tokens_per_image

    @property
    def image_token_id(self) -> int:
        return self._image_token_id

    def encode_images(self, images: Tensor) -> Tensor:
        """uint8 [B,N,3,H,W] → [B, N·tokens_per_image, D]."""
        batch = images.shape[0]
        projected = self.projector(self.vision(images.flatten(0, 1)))
        return projected.reshape(batch, -1, projected.shape[-1])

    def embed(self, images: Tensor | None, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """Embeddings [B,T,D] with the images in place, and bool [B,T] of their positions.

        On the CPU a wrong number of placeholders raises here; batches for a device are checked
        with `check_image_tokens` before they travel.
        """
        embeddings = self.language.embed(tokens)
        if images is None or images.shape[1] == 0:
            return embeddings, None
        if tokens.device.type == "cpu":
            check_image_tokens(tokens, self.image_token_id, images.shape[1], self.tokens_per_image)
        is_image = tokens == self.image_token_id
        return fill_placeholders(embeddings, is_image, self.encode_images(images)), is_image

    def forward(
        self,
        images: Tensor | None,
        tokens: Tensor,
        token_mask: Tensor | None = None,
        *,
        segments: Tensor | None = None,
        return_hidden: bool = False,
    ) -> Tensor:
        """Logits [B,T,V] (or final-normed hidden states [B,T,D]).

        images uint8 [B,N,3,H,W] or None for text alone; tokens int64 [B,T]; token_mask bool [B,T],
        False at padding (not needed when padding is on the right); segments: see Transformer.
        """
        embeddings, is_image = self.embed(images, tokens)
        return self.language(
            embeddings=embeddings,
            segments=segments,
            attention_mask=token_mask,
            bidirectional_spans=self._spans(is_image),
            return_hidden=return_hidden,
        )

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
        embeddings, is_image = self.embed(images, tokens)
        return self.language.tap(
            embeddings,
            positions,
            layers=layers,
            norm=norm,
            attention_mask=token_mask,
            bidirectional_spans=self._spans(is_image),
        )

    def _spans(self, is_image: Tensor | None) -> Tensor | None:
        if is_image is None or self._config.image_attention == "causal":
            return None
        return image_spans(is_image, self.tokens_per_image)

    def resize_vocabulary(self, vocab_size: int, used: int | None = None) -> None:
        self.language.resize_vocabulary(vocab_size, used)


def check_same_architecture(name: str, wanted: Config, found: Config) -> None:
    """The recipe's config of an upstream model must be the upstream's, but for the vocabulary."""
    if type(wanted) is not type(found):
        raise FoundryError(
            f"{name}.kind: the recipe says {kind_of(wanted)!r}, the upstream model is "
            f"{kind_of(found)!r}"
        )
    ignore = ("vocab_size", "source", "revision", "config", "origin", "image_token_id")
    lines = differences(wanted, found, ignore)
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
