"""What the parts of a model offer each other, native and transformers' alike.

Legend: B batch, T sequence, D width, V vocabulary, N images per sample, n images.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from foundry_core.data.robot.transform_config import PromptMarks
from foundry_core.errors import FoundryError
from foundry_core.models.config import (
    BackboneConfig,
    ConvViTConfig,
    HFLanguageConfig,
    HFTextConfig,
    HFVisionConfig,
    HFVLMConfig,
    LoRAConfig,
    ResNetConfig,
    TransformerConfig,
    ViTConfig,
    VLMConfig,
)
from foundry_core.models.cross_entropy import linear_cross_entropy
from foundry_core.models.heads.base import KeyValueShape
from foundry_core.models.kv_cache import KeyValues
from foundry_core.models.layers import Visibility


@dataclass(frozen=True, kw_only=True)
class Tap:
    """What an action head reads: the last `layers` layers' hidden states at positions int64 [B].
    norm: see VLAConfig.tap_norm."""

    positions: Tensor
    layers: int
    norm: str

    def join(self, hidden: Iterable[Tensor], norm: Callable[[Tensor], Tensor]) -> Tensor:
        """The layers' [B,1,D], the lowest first → [B, 1, layers·D]. norm: the model's final one."""
        tapped = torch.stack(list(hidden), dim=2)
        return (norm(tapped) if self.norm == "final" else tapped).flatten(2)


def check_tap(layers: int, available: int) -> None:
    """FoundryError when a tap wants more layers than there are."""
    if layers > available:
        raise FoundryError(
            f"tap_layers is {layers}, but the backbone has {available} layers",
            f"set tap_layers to at most {available}",
        )


def fill_new_rows(weight: Tensor, vocab_size: int, used: int, rows: int) -> None:
    """Rows [used, vocab_size) of a table [V,D] take the mean of the first `used`, of which there
    were at most `rows`; without gradient."""
    used = min(used, rows)
    if used < vocab_size:
        weight[used:vocab_size] = weight[:used].mean(dim=0)


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """Rows to be read: tokens int64 [B,T], padded on the right; lengths int64 [B], at least 1;
    images uint8 [B,N,3,H,W] or None."""

    tokens: Tensor
    lengths: Tensor
    images: Tensor | None = None

    @classmethod
    def of(
        cls, rows: Sequence[Sequence[int]], *, pad_id: int = 0, images: Tensor | None = None
    ) -> Self:
        """Of rows of token ids, on the CPU. FoundryError for an empty one."""
        if not rows or not all(rows):
            raise FoundryError(
                "a prompt has no tokens", "begin with a text, or with the end-of-text token"
            )
        lengths = [len(row) for row in rows]
        tokens = torch.full((len(rows), max(lengths)), pad_id, dtype=torch.int64)
        for row, ids in enumerate(rows):
            tokens[row, : len(ids)] = torch.tensor(ids, dtype=torch.int64)
        return cls(tokens=tokens, lengths=torch.tensor(lengths), images=images)

    def to(self, device: torch.device | str) -> Self:
        """The same on a device."""
        images = None if self.images is None else self.images.to(device)
        return replace(
            self, tokens=self.tokens.to(device), lengths=self.lengths.to(device), images=images
        )

    @property
    def mask(self) -> Tensor:
        """bool [B,T], False at padding."""
        return self.before(self.lengths)

    def before(self, ends: Tensor) -> Tensor:
        """bool [B,T], True before each row's end int64 [B]."""
        positions = torch.arange(self.tokens.shape[1], device=self.tokens.device)
        return positions < ends[:, None]


class Decoder(nn.Module, ABC):
    """What language models and vision-language models have in common.

    compiled_loss: whether the terms of its loss are compiled, as its blocks may be. lora: of the
    low-rank adapters that are on it (lora.py).
    """

    compiled_loss = False
    lora: LoRAConfig | None = None

    @property
    @abstractmethod
    def context(self) -> int | None:
        """The longest sequence it was trained on; None where nobody says."""

    @abstractmethod
    def prefill(self, prompts: Prompts, room: int) -> tuple[Tensor, KeyValues]:
        """Reads prompts: final-normed hidden states [B,D] of each row's last token, and the keys
        and values of all, with room for so many more."""

    @abstractmethod
    def step(self, tokens: Tensor, cache: KeyValues) -> Tensor:
        """Reads one more token of each row, int64 [B] → hidden states [B,D]; `cache`, of this
        model's `prefill`, keeps it. Nothing waits for a device."""

    @abstractmethod
    def hidden_of(self, prompts: Prompts, spoken_from: Tensor) -> Tensor:
        """Final-normed hidden states [B,T,D] without a cache. spoken_from int64 [B]: where in each
        row the prompt ends and what the model says begins."""

    @property
    @abstractmethod
    def dim(self) -> int:
        """D of the hidden states."""

    @property
    @abstractmethod
    def key_values(self) -> KeyValueShape:
        """Of its cache."""

    @property
    @abstractmethod
    def text_layers(self) -> nn.ModuleList:
        """The decoder's blocks; adapters go into these."""

    @property
    def n_layers(self) -> int:
        return len(self.text_layers)

    @property
    def parts(self) -> Mapping[str, Sequence[nn.Module]]:
        """language, vision, projector → the modules that belong to it."""
        return {"language": [self]}

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Rows of the embedding, padding of the table included."""

    @property
    @abstractmethod
    def output_layer(self) -> tuple[Tensor, Tensor | None, float | None]:
        """Weight [V,D] and bias of the logits, and the cap of their soft cap."""

    def logits(self, hidden: Tensor) -> Tensor:
        """Final-normed hidden states [..., D] → logits [..., V], in the compute type."""
        weight, bias, cap = self.output_layer
        logits = nn.functional.linear(hidden, weight, bias)
        return logits if cap is None else cap * torch.tanh(logits / cap)

    def next_token_sums(
        self, hidden: Tensor, targets: Tensor, z_loss: float = 0.0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(loss, its z-loss part) summed over rows: final-normed hidden [n,D], targets int64 [n];
        and the loss of each, [n], which nothing is differentiated through. Equal to cross-entropy
        over `logits`, without ever holding all of them."""
        weight, bias, cap = self.output_layer
        if bias is not None:
            raise FoundryError("the language model's output layer has a bias: unsupported")
        return linear_cross_entropy(
            hidden, weight, targets, z_loss=z_loss, soft_cap=cap, compiled=self.compiled_loss
        )

    @abstractmethod
    def resize_vocabulary(self, vocab_size: int, used: int) -> None:
        """Makes room for `vocab_size` tokens, of which the first `used` were trained: the rows
        [used, vocab_size) of embedding and head start as the mean of those. Never shrinks: rows
        beyond are padding of the table, which no token has and no mean may count."""


class LanguageModel(Decoder):
    """A decoder."""

    @property
    @abstractmethod
    def config(self) -> TransformerConfig | HFLanguageConfig:
        """Describes the module as it is now, its grown vocabulary included."""

    @abstractmethod
    def embed(self, tokens: Tensor) -> Tensor:
        """int64 [B,T] → [B,T,D]."""

    @abstractmethod
    def prefill_embeddings(
        self, embeddings: Tensor, lengths: Tensor, room: int, visible: Visibility = Visibility()
    ) -> tuple[Tensor, KeyValues]:
        """`prefill` of embeddings [B,T,D], padded on the right; of `visible` the spans count."""

    def prefill(self, prompts: Prompts, room: int) -> tuple[Tensor, KeyValues]:
        _refuse_images(prompts)
        return self.prefill_embeddings(self.embed(prompts.tokens), prompts.lengths, room)

    def hidden_of(self, prompts: Prompts, spoken_from: Tensor) -> Tensor:
        _refuse_images(prompts)
        return self.hidden(self.embed(prompts.tokens))

    @abstractmethod
    def hidden(self, embeddings: Tensor, visible: Visibility = Visibility()) -> Tensor:
        """[B,T,D] → final-normed hidden states [B,T,D]."""

    @abstractmethod
    def tap(self, embeddings: Tensor, tap: Tap, visible: Visibility = Visibility()) -> Tensor:
        """[B, 1, layers·D]: see Tap.join."""

    def forward(self, tokens: Tensor, visible: Visibility = Visibility()) -> Tensor:
        """Logits [B,T,V]."""
        return self.logits(self.hidden(self.embed(tokens), visible))


def _refuse_images(prompts: Prompts) -> None:
    if prompts.images is not None:
        raise FoundryError(
            "a language model sees no images", "leave them out, or take a vision-language model"
        )


class VisionTower(nn.Module, ABC):
    """uint8 [n,3,H,W] → [n, patches, width]."""

    @property
    @abstractmethod
    def config(self) -> ViTConfig | ConvViTConfig | ResNetConfig | HFVisionConfig:
        """Describes the module without the folder or hub name it came from."""


class TextTower(nn.Module, ABC):
    """Says what a text means: int64 [B,T] → [B, 1, width], read at the end of each row, where
    `<obs>` stands (ends int64 [B])."""

    @property
    @abstractmethod
    def config(self) -> TransformerConfig | HFTextConfig:
        """Describes the module without the folder or hub name it came from."""

    @property
    @abstractmethod
    def width(self) -> int: ...

    @property
    def opening(self) -> tuple[int, ...]:
        """Tokens before the text."""
        return ()

    @abstractmethod
    def forward(self, tokens: Tensor, token_mask: Tensor | None, ends: Tensor) -> Tensor: ...


class Observer(nn.Module, ABC):
    """What a policy sees and reads through: a vision-language model, or encoders without one.

    images uint8 [B,N,3,H,W] or None for text alone; tokens int64 [B,T]; token_mask bool [B,T],
    False at padding. prompt bool [B,T], True before what the model is to say: models that were
    pretrained to read a prompt both ways do so there.

    needs_token_mask: whether padding on the right needs it, too. Under plain causality nothing real
    sees what comes after; some transformers models attend both ways over a prompt.
    """

    needs_token_mask: ClassVar[bool] = True

    @property
    @abstractmethod
    def config(self) -> BackboneConfig:
        """Describes the module as it is now, its grown vocabulary included."""

    @property
    @abstractmethod
    def tokens_per_image(self) -> int:
        """Placeholders of an image in a row of tokens."""

    @property
    @abstractmethod
    def image_token_id(self) -> int:
        """Of a placeholder."""

    @property
    def marks(self) -> PromptMarks:
        """What its prompts have around images and instruction."""
        return PromptMarks(image=self.image_token_id)

    @property
    @abstractmethod
    def parts(self) -> Mapping[str, Sequence[nn.Module]]:
        """language, vision, projector → the modules that belong to it."""

    @abstractmethod
    def features_dim(self, tap_layers: int) -> int:
        """Width of `features`. FoundryError for more layers than there are."""

    @abstractmethod
    def features(
        self,
        images: Tensor | None,
        tokens: Tensor,
        token_mask: Tensor | None,
        tap: Tap,
        prompt: Tensor | None = None,
    ) -> Tensor:
        """[B,C,Dc]. Of a decoder one token, [B, 1, layers·D]: see Tap.join."""


class Backbone(Decoder, Observer):
    """A vision-language model."""

    @property
    @abstractmethod
    def config(self) -> VLMConfig | HFVLMConfig: ...

    def features_dim(self, tap_layers: int) -> int:
        check_tap(tap_layers, self.n_layers)
        return tap_layers * self.dim

    @abstractmethod
    def hidden(
        self,
        images: Tensor | None,
        tokens: Tensor,
        token_mask: Tensor | None = None,
        prompt: Tensor | None = None,
    ) -> Tensor:
        """Final-normed hidden states [B,T,D]."""

    @abstractmethod
    def hidden_text(self, tokens: Tensor, visible: Visibility) -> Tensor:
        """The same of text alone, which may be packed documents."""

    @property
    def packs(self) -> bool:
        """Whether it takes rows of several documents with images."""
        return False

    def hidden_packed(self, images: Tensor, tokens: Tensor, visible: Visibility) -> Tensor:
        """Final-normed hidden states [R,T,D] of rows of documents with images uint8 [B,N,3,H,W],
        in the order in which the rows, one after the other, have their placeholders."""
        raise FoundryError(
            "this vision-language model does not read packed rows",
            "leave data.captions.packing out",
        )

    def hidden_of(self, prompts: Prompts, spoken_from: Tensor) -> Tensor:
        mask = prompts.mask if self.needs_token_mask else None
        prompt = prompts.before(spoken_from)
        return self.hidden(prompts.images, prompts.tokens, mask, prompt=prompt)

    def forward(
        self, images: Tensor | None, tokens: Tensor, token_mask: Tensor | None = None
    ) -> Tensor:
        """Logits [B,T,V]."""
        return self.logits(self.hidden(images, tokens, token_mask))
