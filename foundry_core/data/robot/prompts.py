"""Token layouts: the one place that says what a model reads, for training and serving alike.

robot:    [image block] * images, instruction, <|obs|>
captions: [image block] * images, prefix, caption, end of text
question: the same up to the caption, with the question as prefix
An image block is tokens_per_image copies of the <|image|> token. A pretrained model has an image
token of its own, and marks around images and instruction (PromptMarks).
"""

from collections.abc import Mapping
from functools import lru_cache

from foundry_core.data.robot.transform_config import IMAGE, OBS, Prompt, PromptMarks
from foundry_core.data.text.tokenizer import Tokenizer

# Texts whose ids are kept: instructions, prefixes and the captions of a small set come again and
# again, and a text of 100 tokens takes about 4 KB.
_KEPT = 4096


class PromptBuilder:
    """`tokenizer` must know its image token (and <|obs|> for robot prompts) already."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        tokens_per_image: int,
        prompt: Prompt,
        marks: PromptMarks = PromptMarks(),
    ) -> None:
        self._tokenizer = tokenizer
        self._prompt = prompt
        self._marks = marks
        image = tokenizer.token_id(IMAGE) if marks.image is None else marks.image
        self._block = [*marks.image_before, *[image] * tokens_per_image, *marks.image_after]
        self._encoded = lru_cache(maxsize=_KEPT)(tokenizer.encode)
        self.pad_id = tokenizer.pad_id

    def __getstate__(self) -> Mapping[str, object]:
        return {k: v for k, v in self.__dict__.items() if k != "_encoded"}

    def __setstate__(self, state: Mapping[str, object]) -> None:
        self.__dict__.update(state)
        self._encoded = lru_cache(maxsize=_KEPT)(self._tokenizer.encode)

    def robot(self, instruction: str, images: int, limit: int) -> tuple[list[int], bool]:
        """(tokens, whether the instruction was cut to `limit` tokens)."""
        asked = self._prompt.instruction.replace("{instruction}", instruction.strip())
        text = self._encoded(asked)
        obs = self._tokenizer.token_id(OBS)
        head = self._before_text(images)
        return [*head, *text[:limit], *self._marks.closing, obs], len(text) > limit

    def caption(
        self, caption: str, images: int, limit: int, question: str | None = None
    ) -> tuple[list[int], list[bool], bool]:
        """(tokens, target mask, whether it was cut). Targets are the caption and the end of text;
        a cut caption has no end to predict. `limit` counts the tokens after the images. question:
        what the caption answers, in place of the prefix."""
        prefix = self._prompt.caption_prefix if question is None else question
        body = [*self._encoded(caption.strip()), self._tokenizer.eos_id]
        kept = body[: max(limit - len(self._encoded(prefix)), 0)]
        head = self.question(prefix, images)
        mask = [False] * len(head) + [True] * len(kept)
        return head + kept, mask, len(kept) < len(body)

    def question(self, text: str, images: int) -> list[int]:
        """Up to where the model begins to speak."""
        return [*self._before_text(images), *self._encoded(text), *self._marks.closing]

    def _before_text(self, images: int) -> list[int]:
        return [*self._marks.opening, *self._block * images, *self._marks.text_before]
