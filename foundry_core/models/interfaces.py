"""What the parts of a model offer each other, native and transformers' alike.

Legend: B batch, T sequence, D width, V vocabulary, N images per sample, n images.
"""

from abc import ABC, abstractmethod
from typing import Protocol

from torch import Tensor, nn

from foundry_core.models.config.language import HFLanguageConfig, TransformerConfig
from foundry_core.models.config.vision import ConvViTConfig, HFVisionConfig, ViTConfig
from foundry_core.models.config.vlm import HFVLMConfig, VLMConfig


class TextModel(Protocol):
    """What a next-token loss needs. Calls are as Transformer.forward describes."""

    def __call__(
        self, tokens: Tensor, *, segments: Tensor | None, return_hidden: bool
    ) -> Tensor: ...

    def next_token_sums(
        self, hidden: Tensor, targets: Tensor, z_loss: float
    ) -> tuple[Tensor, Tensor]:
        """(loss, its z-loss part) summed over rows: final-normed hidden [n,D], targets int64 [n].
        Equal to cross-entropy over `logits`, without ever holding all of them."""
        ...


class _Decoding(nn.Module, ABC):
    """What language models and vision-language models have in common."""

    @property
    @abstractmethod
    def dim(self) -> int:
        """D of the hidden states."""

    @property
    @abstractmethod
    def text_layers(self) -> nn.ModuleList:
        """The decoder's blocks; adapters go into these."""

    @property
    def n_layers(self) -> int:
        return len(self.text_layers)

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Rows of the embedding, padding of the table included."""

    @abstractmethod
    def logits(self, hidden: Tensor) -> Tensor:
        """Final-normed hidden states [..., D] → logits [..., V], in the compute type."""

    @abstractmethod
    def next_token_sums(
        self, hidden: Tensor, targets: Tensor, z_loss: float = 0.0
    ) -> tuple[Tensor, Tensor]:
        """As TextModel.next_token_sums."""

    @abstractmethod
    def resize_vocabulary(self, vocab_size: int, used: int | None = None) -> None:
        """Grows embedding and head to `vocab_size` rows; see transformer.resize_rows."""


class LanguageModel(_Decoding):
    """A decoder. Called as Transformer.forward describes."""

    @property
    @abstractmethod
    def config(self) -> TransformerConfig | HFLanguageConfig:
        """Describes the module as it is now, its grown vocabulary included."""

    @abstractmethod
    def embed(self, tokens: Tensor) -> Tensor:
        """int64 [B,T] → [B,T,D]."""

    @abstractmethod
    def tap(
        self,
        embeddings: Tensor,
        positions: Tensor,
        *,
        layers: int,
        norm: str,
        attention_mask: Tensor | None = None,
        bidirectional_spans: Tensor | None = None,
    ) -> Tensor:
        """The last `layers` layers' hidden states at positions int64 [B], concatenated from the
        lowest layer to the highest: [B, 1, layers·D]. norm: see VLAConfig.tap_norm."""


class VisionTower(nn.Module, ABC):
    """uint8 [n,3,H,W] → [n, patches, width]."""

    @property
    @abstractmethod
    def config(self) -> ViTConfig | ConvViTConfig | HFVisionConfig:
        """Describes the module without the folder or hub name it came from."""

    @property
    def width(self) -> int:
        return self.config.width


class Backbone(_Decoding):
    """A vision-language model. Called as VLM.forward describes.

    language: its text stack alone, for text batches.
    """

    language: TextModel

    @property
    @abstractmethod
    def config(self) -> VLMConfig | HFVLMConfig:
        """Describes the module as it is now, its grown vocabulary included."""

    @property
    @abstractmethod
    def tokens_per_image(self) -> int: ...

    @property
    @abstractmethod
    def image_token_id(self) -> int: ...

    @abstractmethod
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
        """[B, 1, layers·D]: the last layers' hidden states at positions int64 [B]."""
