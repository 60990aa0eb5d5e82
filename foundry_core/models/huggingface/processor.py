"""What a checkpoint's processor and chat template say: image size, filter and normalisation, and
the tokens that stand around images and instruction. Read once, then part of the model's config."""

import json
import math
import tempfile
from pathlib import Path
from typing import Any

from transformers import AutoImageProcessor, PreTrainedTokenizerBase

from foundry_core.data.robot.transform_config import PromptMarks
from foundry_core.errors import FoundryError
from foundry_core.files import read_json
from foundry_core.models.config import HFVLMConfig, ImageNormalization
from foundry_core.models.huggingface.checkpoint import pretrained_tokenizer
from foundry_core.models.huggingface.families import FAMILIES, Family, Named

_PROCESSORS = ("preprocessor_config.json", "processor_config.json")
_FILTERS = {1: "lanczos", 2: "bilinear", 3: "bicubic"}
_FREE_SIDE = 224
"""Of models that take any size: what robots' cameras mostly are."""
_TEXT = "SAMPLETEXT"


def with_processor(
    config: HFVLMConfig, folder: Path, settings: Any, tokenizer: PreTrainedTokenizerBase | None
) -> HFVLMConfig:
    """The config with what the checkpoint in `folder` says of its inputs, where it is null. Of a
    checkpoint without a processor image_size must be given."""
    found: dict[str, Any] = {}
    if any((folder / name).is_file() for name in _PROCESSORS):
        found = _image_settings(folder, settings)
    elif config.image_size is None:
        raise FoundryError(
            f"{folder} has no {_PROCESSORS[0]}, so the size of its images is unknown",
            "set image_size, normalization and resample",
        )
    if tokenizer is not None and config.marks is None:
        found["marks"] = marks_of(FAMILIES[settings.model_type], settings, folder, tokenizer)
    given = {name for name in found if getattr(config, name) is not None}
    return config.model_copy(update={n: v for n, v in found.items() if n not in given})


def _image_settings(folder: Path, settings: Any) -> dict[str, Any]:
    try:
        # Any: each image processor has fields of its own.
        processor: Any = AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, ImportError) as error:
        raise FoundryError(
            f"the image processor in {folder} cannot be read: {str(error).splitlines()[0]}",
            "transformers must know its image_processor_type",
        ) from error
    if not processor.do_rescale or not math.isclose(processor.rescale_factor, 1 / 255):
        raise FoundryError(
            f"the image processor in {folder} does not scale pixels by 1/255, which is unsupported"
        )
    mean, std = processor.image_mean, processor.image_std
    if not processor.do_normalize:
        mean, std = (0.0,) * 3, (1.0,) * 3
    return {
        "image_size": _side(processor, settings),
        "normalization": ImageNormalization(mean=tuple(mean), std=tuple(std)),
        "resample": _FILTERS.get(int(processor.resample), "bicubic"),
    }


def _side(processor: Any, settings: Any) -> int:
    """Of the squares that the model is fed."""
    longest = getattr(processor, "max_image_size", None)
    if longest:
        return int(longest["longest_edge"])
    if settings.model_type.startswith("qwen"):
        vision = settings.vision_config
        factor = vision.patch_size * vision.spatial_merge_size
        bounds = processor.size["shortest_edge"], processor.size["longest_edge"]
        return free_side(_FREE_SIDE, factor, *bounds)
    height, width = processor.size["height"], processor.size["width"]
    if height != width:
        raise FoundryError(
            f"the model takes images of {height}x{width}: only squares are supported"
        )
    return int(height)


def free_side(wanted: int, factor: int, min_pixels: int, max_pixels: int) -> int:
    """The side, a multiple of `factor`, to which Qwen-VL's processor brings a square picture."""
    side = max(factor, round(wanted / factor) * factor)
    if side**2 > max_pixels:
        return max(factor, math.floor(math.sqrt(max_pixels) / factor) * factor)
    if side**2 < min_pixels:
        return math.ceil(math.sqrt(min_pixels) / factor) * factor
    return side


def marks_of(
    family: Family, settings: Any, folder: Path, tokenizer: PreTrainedTokenizerBase
) -> PromptMarks:
    """Of a user's turn with pictures and a text, as the checkpoint's chat template writes it; of
    one without a template, what the family's processor writes."""
    before, after = family.around(settings, _named(tokenizer))
    template = _template(folder, tokenizer)
    if template is not None:
        parts = _turn(tokenizer, template, family, settings)
    elif settings.model_type == "paligemma":
        parts = "", "", "", tokenizer.bos_token or "", "\n"
    else:
        bare = family.bare or _no_marks
        parts = _bos(tokenizer), *bare(settings, _named(tokenizer)), "", ""
    opening, image_before, image_after, text_before, closing = parts

    def ids(text: str) -> tuple[int, ...]:
        return tuple(tokenizer.encode(text, add_special_tokens=False)) if text else ()

    return PromptMarks(
        opening=ids(opening),
        image_before=ids(image_before + before),
        image_after=ids(after + image_after),
        text_before=ids(text_before),
        closing=ids(closing),
        image=settings.image_token_id,
    )


def text_marks(processor: Path, folder: Path) -> PromptMarks | None:
    """Around the text of a user's turn, by the chat template in `processor`, the kept files of a
    language model in `folder`; None where there is none."""
    with tempfile.TemporaryDirectory() as place:
        together = Path(place)
        for path in (*processor.iterdir(), folder / "tokenizer.json"):
            (together / path.name).symlink_to(path.absolute())
        tokenizer = pretrained_tokenizer(together)
        assert tokenizer is not None, "its tokenizer.json lies there"
        template = _template(together, tokenizer)
    if template is None:
        return None
    turn = _rendered(tokenizer, template, _TEXT)
    if turn.count(_TEXT) != 1:
        raise FoundryError(
            f"the model's chat template writes {json.dumps(turn)} for a text, where it should "
            "stand once",
            "go on without the template",
        )
    before, after = (
        tuple(tokenizer.encode(part, add_special_tokens=False)) for part in turn.split(_TEXT)
    )
    return PromptMarks(text_before=before, closing=after)


def _rendered(tokenizer: PreTrainedTokenizerBase, template: str, content: Any) -> str:
    """A user's turn, up to where the model begins to speak."""
    try:
        turn: Any = tokenizer.apply_chat_template(
            [{"role": "user", "content": content}],
            chat_template=template,
            tokenize=False,
            add_generation_prompt=True,
        )
    except Exception as error:  # templates are programs: any error of theirs is possible
        raise FoundryError(f"the checkpoint's chat template fails: {error}") from error
    return str(turn)


def _named(tokenizer: PreTrainedTokenizerBase) -> Named:
    return lambda token: str(tokenizer.convert_ids_to_tokens(token))


def _no_marks(settings: Any, named: Named) -> tuple[str, str]:
    return "", ""


def _bos(tokenizer: PreTrainedTokenizerBase) -> str:
    """What the tokenizer itself puts before a text."""
    first = tokenizer.encode("a")[:1]
    return tokenizer.bos_token or "" if first == [tokenizer.bos_token_id] else ""


def _template(folder: Path, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The checkpoint's chat template, in whichever of its places."""
    for name in ("chat_template.json", "processor_config.json"):
        if (folder / name).is_file():
            found = read_json(folder / name).get("chat_template")
            if isinstance(found, str):
                return found
    template: Any = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    return template


def _turn(
    tokenizer: PreTrainedTokenizerBase, template: str, family: Family, settings: Any
) -> tuple[str, str, str, str, str]:
    """(opening, before each image, after each image, before the text, closing) of a user's turn.

    Found by writing a turn with two pictures: what stands between them is the end of one and the
    beginning of the other, which the text before the first and after the last tell apart.
    """
    image = _named(tokenizer)(family.placeholder(settings))
    content = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": _TEXT}]
    turn = _rendered(tokenizer, template, content)
    pieces = turn.split(image)
    if len(pieces) != 3 or pieces[2].count(_TEXT) != 1:
        raise FoundryError(
            f"the checkpoint's chat template writes {json.dumps(turn)} for a turn with two images "
            "and a text, where each should stand once",
            "state them: marks",
        )
    head, between, tail = pieces
    before_text, closing = tail.split(_TEXT)
    for cut in range(len(between) + 1):
        after, before = between[:cut], between[cut:]
        if head.endswith(before) and before_text.startswith(after):
            opening = head[: len(head) - len(before)]
            return opening, before, after, before_text[len(after) :], closing
    raise FoundryError(
        f"the checkpoint's chat template puts {json.dumps(between)} between images only",
        "state them: marks",
    )
