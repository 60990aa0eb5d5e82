"""A VLM's captions beside those that stand there: words, likelihood, and the places they name."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from foundry_core.data.convert.split import VALIDATION
from foundry_core.data.images import decode_image
from foundry_core.data.loading.captions import image_files
from foundry_core.data.shards.read import ShardSet
from foundry_core.data.text.answers import exact_match, token_f1
from foundry_core.errors import FoundryError
from foundry_core.evaluation.quality import Measure, mapped, mean, ratio, share
from foundry_core.evaluation.vision.config import CaptionExam
from foundry_core.evaluation.vision.writing import ReadText, Writer
from foundry_core.simulation.scene_words import BINS, GOAL, HAND, OBJECT, SceneWords, read_caption

_AT_ONCE = 32
"""Samples whose pictures are in memory."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """images: uint8 [H,W,3] by name, in the order the model sees them."""

    id: str
    images: dict[str, np.ndarray]
    caption: str


@dataclass(frozen=True, kw_only=True)
class Described:
    """What a model wrote under a sample. nats: −log likelihood of the caption that stands there,
    over `tokens`. pixel_errors: of the points that both place in a picture, by "camera/point", in
    pixels of the stored picture; unplaced: points that the caption places and the model does not.
    offset_error_cm: None unless both say the way from hand to object."""

    id: str
    said: str
    caption: str
    exact: bool
    token_f1: float
    nats: float
    tokens: int
    bytes: int
    pixel_errors: dict[str, float] = field(default_factory=dict)
    unplaced: tuple[str, ...] = ()
    offset_error_cm: float | None = None


def samples(folder: Path, exam: CaptionExam) -> Iterator[Sample]:
    """Evenly spaced over the dataset. FoundryError where there is no validation side, or where a
    sample lacks an image."""
    if exam.split == VALIDATION:
        folder = folder / VALIDATION
        if not folder.is_dir():
            raise FoundryError(
                "the captions were converted without a split: nothing is held out",
                "give convert_captions a `split`, or examine with captions.split=all",
            )
    shards = ShardSet(folder)
    count = len(shards) if exam.limit is None else min(exam.limit, len(shards))
    for number in range(count):
        at = number * len(shards) // count
        members = shards.members(at)
        files = image_files(members)
        names = exam.images or sorted(files)
        missing = [name for name in names if name not in files]
        if missing or "txt" not in members:
            raise FoundryError(
                f"sample {shards.key(at)!r} lacks {', '.join(missing) or 'its caption'}",
                f"it has {', '.join(sorted(members))}",
            )
        images = {n: decode_image(members[files[n]], f"{n} of {shards.key(at)}") for n in names}
        yield Sample(id=shards.key(at), images=images, caption=bytes(members["txt"]).decode())


def describe(
    writer: Writer, found: Sequence[Sample], exam: CaptionExam, each: Callable[[int], None]
) -> Iterator[Described]:
    """What the model writes under each; each: is told how many are done."""
    for start in range(0, len(found), _AT_ONCE):
        some = found[start : start + _AT_ONCE]
        prompts = [writer.prompt(exam.prompt, [*one.images.values()]) for one in some]
        written = writer.write(prompts, exam.max_tokens)
        read = writer.read(prompts, [one.caption for one in some])
        for one, said, text in zip(some, written, read, strict=True):
            yield _described(one, said, text)
        each(start + len(some))


def _described(sample: Sample, said: str, read: ReadText) -> Described:
    caption = sample.caption.strip()
    there, told = read_caption(caption), read_caption(said)
    errors, unplaced = _places(sample, there, told)
    offset = None
    if there.offset is not None and told.offset is not None:
        offset = math.dist(there.offset, told.offset)
    return Described(
        id=sample.id,
        said=said,
        caption=caption,
        exact=exact_match(said, [caption]),
        token_f1=token_f1(said, caption),
        nats=read.nats,
        tokens=read.tokens,
        bytes=read.bytes,
        pixel_errors=errors,
        unplaced=unplaced,
        offset_error_cm=offset,
    )


def _places(
    sample: Sample, there: SceneWords, told: SceneWords
) -> tuple[dict[str, float], tuple[str, ...]]:
    errors: dict[str, float] = {}
    unplaced: list[str] = []
    for (camera, point), at in there.places.items():
        if at is None:
            continue
        name, said = f"{camera}/{point}", told.places.get((camera, point))
        if said is None:
            unplaced.append(name)
            continue
        height, width = sample.images[camera].shape[:2] if camera in sample.images else (BINS, BINS)
        across, down = (said[0] - at[0]) * width / BINS, (said[1] - at[1]) * height / BINS
        errors[name] = math.hypot(across, down)
    return errors, tuple(unplaced)


def caption_measures(task: str, found: Sequence[Described]) -> Iterator[Measure]:
    """exact, token_f1; loss (nats per token) and bits_per_byte. Of captions that name places:
    placed (share of the points that the model places, too), pixel_error_px over those, also by
    point, and offset_error_cm."""
    yield share(task, "exact", (one.exact for one in found))
    yield mean(task, "token_f1", [one.token_f1 for one in found], most=1.0)
    nats = [one.nats for one in found]
    yield ratio(task, "loss", nats, [one.tokens for one in found])
    per_byte = ratio(task, "nats_per_byte", nats, [one.bytes for one in found])
    yield mapped(per_byte, "bits_per_byte", lambda nat: nat / math.log(2))
    if not any(one.pixel_errors or one.unplaced for one in found):
        return
    yield _errors(task, "", found)
    yield ratio(
        task,
        "placed",
        [len(one.pixel_errors) for one in found],
        [len(one.pixel_errors) + len(one.unplaced) for one in found],
        most=1.0,
    )
    for point in (HAND, OBJECT, GOAL):
        if any(_of(one, point) for one in found):
            yield _errors(f"{task}/{point}", point, found)
    offsets = [one.offset_error_cm for one in found if one.offset_error_cm is not None]
    yield mean(task, "offset_error_cm", offsets)


def _errors(task: str, point: str, found: Sequence[Described]) -> Measure:
    """Points of one scene go together: the scene is what is drawn."""
    by_scene = [errors for one in found if (errors := _of(one, point))]
    return ratio(task, "pixel_error_px", [sum(e) for e in by_scene], [len(e) for e in by_scene])


def _of(one: Described, point: str) -> list[float]:
    """Errors of a point in all views; "" of all points."""
    named = one.pixel_errors.items()
    return [error for name, error in named if point in ("", name.rpartition("/")[2])]
