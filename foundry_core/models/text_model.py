"""A saved language model or VLM with its tokenizer: text and pictures in, text out.

What a model is asked stands in the form it was trained on: as its chat template places it where it
was imported with one, else as bare text after its images, which it goes on writing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foundry_core.config.validation import read_as
from foundry_core.data.robot.augment import apply_view, centre_view
from foundry_core.data.robot.prompts import PromptBuilder
from foundry_core.data.robot.transform_config import ImageInput, Prompt, PromptMarks
from foundry_core.data.text.tokenizer import Tokenizer
from foundry_core.errors import FoundryError
from foundry_core.models.config import HFVLMConfig, VLAConfig
from foundry_core.models.generation import Generated, generate
from foundry_core.models.generation_config import GenerationConfig
from foundry_core.models.interfaces import Backbone, LanguageModel, Prompts
from foundry_core.models.io import load_config, load_model
from foundry_core.models.lora import merge_lora
from foundry_core.models.processor_files import processor_of
from foundry_core.models.resample import resize
from foundry_core.models.vlm import check_vocabulary

_GENERATION = "generation_config.json"
_REPLACEMENT = "\ufffd"
_UNFINISHED = 3
"""Bytes of a character that can wait for its last one."""
_KEPT_TOKENS = 16
"""Tokens that the next one is decoded with."""


@dataclass(frozen=True, kw_only=True)
class TextModel:
    """marks: what stands around images and text. stop: tokens that end what it writes."""

    model: LanguageModel | Backbone
    tokenizer: Tokenizer
    marks: PromptMarks
    stop: frozenset[int]

    def prompt(self, text: str, images: Sequence[np.ndarray] = ()) -> Prompts:
        """One row, on the CPU, of a text and uint8 [H,W,3] pictures of any size."""
        if isinstance(self.model, Backbone):
            per_image = self.model.tokens_per_image
            builder = PromptBuilder(self.tokenizer, per_image, Prompt(), self.marks)
            tokens = builder.question(text, len(images))
            pictures = self._pictures(self.model, images) if images else None
            return Prompts.of([tokens or [self.tokenizer.eos_id]], images=pictures)
        if images:
            raise FoundryError(
                "a language model sees no images",
                "leave them out, or name a vision-language model",
            )
        marks = self.marks
        before = [*marks.opening, *marks.text_before]
        tokens = [*before, *self.tokenizer.encode(text), *marks.closing]
        return Prompts.of([tokens or [self.tokenizer.eos_id]])

    @property
    def banned(self) -> list[int]:
        """Tokens that are no text: rows that pad the table, the image token."""
        padding = range(self.tokenizer.vocab_size, self.model.vocab_size)
        image = [self.model.image_token_id] if isinstance(self.model, Backbone) else []
        return [*image, *(token for token in padding if token not in image)]

    def write(
        self, prompt: Prompts, config: GenerationConfig, show: Callable[[str], None]
    ) -> Generated:
        """What it writes after a prompt of one row; show: is given the text piece by piece, as it
        is written."""
        pieces = TextPieces(self.tokenizer)

        def each(tokens: Tensor) -> None:
            token = int(tokens[0])
            if token not in self.stop:
                show(pieces.add(token))

        (written,) = generate(
            self.model, prompt, config, stop=self.stop, banned=self.banned, each=each
        )
        show(pieces.rest())
        return written

    def _pictures(self, model: Backbone, images: Sequence[np.ndarray]) -> Tensor:
        """uint8 [1,N,3,side,side]: stretched, with the filter that the model was trained with."""
        config = model.config
        side = config.image_size
        assert side is not None, "a model that was built knows it"
        if isinstance(config, HFVLMConfig):
            method = config.resample or "bicubic"
            rows = [
                resize(torch.from_numpy(image).permute(2, 0, 1)[None], side, method)
                for image in images
            ]
            return torch.cat(rows)[None]
        size = (side, side)
        seen = [
            apply_view(image, centre_view(ImageInput(size=size), *image.shape[:2]), size)
            for image in images
        ]
        return torch.from_numpy(np.stack(seen)).permute(0, 3, 1, 2)[None]


def load_text_model(folder: Path, *, device: str = "cpu", raw: bool = False) -> TextModel:
    """Of a saved model's folder. raw: without the chat template. FoundryError for a policy, and for
    what is no model."""
    if isinstance(load_config(folder), VLAConfig):
        raise FoundryError(
            f"{str(folder)!r} is a policy: it acts, and writes no text",
            "name the vision-language model it was made from",
        )
    tokenizer = Tokenizer.load(folder)
    model, _ = load_model(folder, device=device)
    assert isinstance(model, LanguageModel | Backbone)
    merge_lora(model)
    check_vocabulary(
        tokenizer=(tokenizer.digest, tokenizer.vocab_size), model=(None, model.vocab_size)
    )
    return TextModel(
        model=model.eval(),
        tokenizer=tokenizer,
        marks=_marks(folder, tokenizer, model, raw),
        stop=frozenset((tokenizer.eos_id, *_ends(processor_of(folder)))),
    )


def _marks(
    folder: Path, tokenizer: Tokenizer, model: LanguageModel | Backbone, raw: bool
) -> PromptMarks:
    if isinstance(model, Backbone):
        marks = model.marks
        plain = {"opening": (), "text_before": (), "closing": ()}
        return marks.model_copy(update=plain) if raw else marks
    kept = processor_of(folder)
    if kept is not None and not raw:
        from foundry_core.models.huggingface.processor import text_marks

        found = text_marks(kept, folder)
        if found is not None:
            return found
    return PromptMarks(opening=tuple(tokenizer.opening))


def _ends(kept: Path | None) -> list[int]:
    """The end tokens of a checkpoint's generation_config.json."""
    if kept is None or not (kept / _GENERATION).is_file():
        return []
    stated = read_as(dict[str, Any], kept / _GENERATION, "import the checkpoint again")
    ends = stated.get("eos_token_id")
    return [end for end in (ends if isinstance(ends, list) else [ends]) if isinstance(end, int)]


class TextPieces:
    """Text of tokens as they come. What is not yet a whole character waits for the next token."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._tokens: list[int] = []
        self._told = 0

    def add(self, token: int) -> str:
        """What can be shown now."""
        self._tokens.append(token)
        text = self._text()
        whole = len(text.rstrip(_REPLACEMENT))
        return self._tell(text, max(whole, len(text) - _UNFINISHED))

    def rest(self) -> str:
        """What was held back; bytes that are no character are U+FFFD."""
        text = self._text()
        return self._tell(text, len(text))

    def _text(self) -> str:
        return self._tokenizer.decode(self._tokens, skip_special=True)

    def _tell(self, text: str, end: int) -> str:
        end = max(end, self._told)
        new, held = text[self._told : end], len(text) - end
        # Decoding all of it for each token would cost its length squared. Some tokens stay: a
        # decoder may treat the first one differently (a leading space).
        self._tokens = self._tokens[-_KEPT_TOKENS:]
        self._told = len(self._text()) - held
        return new
