"""What a VLM writes under pictures, many at once, and how likely it finds what stands there."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch

from foundry_core.models.generation import Continuation, generate, score
from foundry_core.models.generation_config import GenerationConfig
from foundry_core.models.interfaces import Prompts
from foundry_core.models.text_model import TextModel


@dataclass(frozen=True, kw_only=True)
class Writer:
    """batch: rows at once."""

    text_model: TextModel
    batch: int

    def prompt(self, text: str, images: Sequence[np.ndarray]) -> Prompts:
        """One row. images: uint8 [H,W,3] each."""
        return self.text_model.prompt(text, images)

    def write(self, prompts: Sequence[Prompts], max_tokens: int) -> list[str]:
        """The likeliest text after each, without the token that ends it; prompts beside each other
        that have as many images share a batch."""
        config = GenerationConfig(max_tokens=max_tokens)
        found: list[str] = []
        for some in _batches(prompts, self.batch):
            rows = [one.tokens[0].tolist() for one in some]
            pictures = [one.images for one in some if one.images is not None]
            joined = Prompts.of(rows, images=torch.cat(pictures) if pictures else None)
            loaded = self.text_model
            written = generate(loaded.model, joined, config, stop=loaded.stop, banned=loaded.banned)
            found += (loaded.tokenizer.decode(one.tokens, skip_special=True) for one in written)
        return found

    def read(self, prompts: Sequence[Prompts], texts: Sequence[str]) -> "list[ReadText]":
        """Each text and the end behind it, after its prompt. Of one for which the model's context
        has no room its beginning, without an end, as in training."""
        items = [self._item(*pair) for pair in zip(prompts, texts, strict=True)]
        scored = score(self.text_model.model, items, batch=self.batch)
        tokenizer = self.text_model.tokenizer
        return [
            ReadText(
                nats=-likelihood.total,
                tokens=len(item.tokens),
                bytes=len(tokenizer.decode(item.tokens, skip_special=True).encode()),
            )
            for item, likelihood in zip(items, scored, strict=True)
        ]

    def _item(self, prompt: Prompts, text: str) -> Continuation:
        tokenizer, context = self.text_model.tokenizer, self.text_model.model.context
        ids = prompt.tokens[0].tolist()
        tokens = [*tokenizer.encode(text.strip()), tokenizer.eos_id]
        return Continuation(
            context=ids,
            tokens=tokens if context is None else tokens[: max(1, context + 1 - len(ids))],
            images=None if prompt.images is None else prompt.images[0],
            keep=len(ids),
        )


@dataclass(frozen=True, kw_only=True)
class ReadText:
    """nats: −log likelihood of a text's tokens; bytes: of the text that these are."""

    nats: float
    tokens: int
    bytes: int


def _batches(prompts: Sequence[Prompts], size: int) -> Iterator[list[Prompts]]:
    def images(one: Prompts) -> int:
        return 0 if one.images is None else one.images.shape[1]

    for _, group in groupby(prompts, images):
        alike = list(group)
        yield from (alike[start : start + size] for start in range(0, len(alike), size))
