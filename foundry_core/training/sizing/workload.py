"""What a training stage reads in a step, as far as its declaration tells. No torch.

Rows are as long as the recipe lets them become: with an instruction or a caption of the allowed
length.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from foundry_core.data.loading.config import CAPTIONS, ROBOT, TEXT, CaptionData, DataConfig
from foundry_core.data.robot.transform_config import PromptMarks
from foundry_core.training.recipes import Inputs


@dataclass(frozen=True, kw_only=True)
class Rows:
    """One modality's rows of a step, of all ranks together. positions: of the decoder, in a row;
    targets: those of them with logits; images: of a row."""

    modality: str
    samples: int
    positions: int
    targets: float = 0
    images: int = 0


@dataclass(frozen=True, kw_only=True)
class ImageTokens:
    """What stands for an image in a row, and what a pretrained model wants around it."""

    each: int = 0
    marks: PromptMarks = field(default_factory=PromptMarks)

    def prompt(self, images: int) -> int:
        """Tokens of a row besides its text."""
        around = len(self.marks.image_before) + len(self.marks.image_after)
        once = len(self.marks.opening) + len(self.marks.text_before) + len(self.marks.closing)
        return images * (self.each + around) + once


def rows_of(
    data: DataConfig, inputs: Inputs, tokens: ImageTokens, context: int, *, blind: bool = False
) -> Iterator[Rows]:
    """Of every modality. context: of text whose conversion is not known. blind: demonstrations
    without their images."""

    def padded(length: int) -> int:
        return -(-length // data.pad_multiple) * data.pad_multiple

    if data.text:
        length = context_of(inputs) or context
        yield Rows(modality=TEXT, samples=data.text.batch_size, positions=length, targets=length)
    if data.captions:
        images = _caption_images(data.captions, inputs)
        text = data.captions.max_tokens
        yield Rows(
            modality=CAPTIONS,
            samples=data.captions.batch_size,
            positions=padded(tokens.prompt(images) + text) - 1,
            targets=text,
            images=images,
        )
    if data.robot:
        robot = data.robot.inputs
        length = padded(tokens.prompt(robot.images) + robot.max_instruction_tokens + 1)
        yield Rows(
            modality=ROBOT,
            samples=data.robot.batch_size,
            positions=length - (tokens.each * robot.images if blind else 0),
            images=0 if blind else robot.images,
        )


def context_of(inputs: Inputs) -> int | None:
    """Positions of the rows of text that are connected; None where their conversion says none."""
    for text in inputs.get(TEXT, {}).values():
        context: int | None = getattr(text.recipe, "context", None)
        return context
    return None


def _caption_images(data: CaptionData, inputs: Inputs) -> int:
    if data.images is not None:
        return len(data.images)
    for captions in inputs.get(CAPTIONS, {}).values():
        cameras = getattr(captions.states, "cameras", {})
        if cameras:
            return len(cameras)
    return 1


def total_steps(recipe: Any, rows: Sequence[Rows]) -> int:
    """Of the recipe's budget. FoundryError for one that means nothing for these rows."""
    text_alone = all(row.modality == TEXT for row in rows)
    tokens = sum(row.samples * row.positions for row in rows) if text_alone else None
    steps: int = recipe.training.total_steps(
        samples_per_step=recipe.data.samples_per_step, tokens_per_step=tokens
    )
    return steps
