"""What the caption formats share: ids, bounded image files, metadata, a sample for each caption."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from foundry_core.data.sources.base import MAX_DOCUMENT, Broken, Captioned
from foundry_core.errors import FoundryError

IMAGES = ("jpg", "jpeg", "png", "webp")
"""Extensions of images, without the dot."""


def sample_id(*parts: object) -> str:
    """What may name a sample of a shard: no dots, no slashes."""
    return re.sub(r"[./\\\s\x00-\x1f]", "_", "-".join(map(str, parts)))


def samples(
    name: str,
    place: str,
    images: Mapping[str, bytes],
    captions: Sequence[Any],
    metadata: Mapping[str, Any],
) -> Iterator[Captioned | Broken]:
    """A sample for each caption; several are told apart by a number behind the id. name: of the
    sample. place: what a person finds it by."""
    problem = "" if images else "it has no image"
    problem = problem or next(
        (f"{key} is longer than {MAX_DOCUMENT} bytes" for key in images if _long(images[key])), ""
    )
    problem = problem or ("" if captions else "it has no caption")
    if problem:
        yield Broken(id=place, reason=problem)
        return
    for number, caption in enumerate(captions):
        several = f"[{number}]" if len(captions) > 1 else ""
        if not isinstance(caption, str) or not caption.strip():
            yield Broken(id=f"{place}{several}", reason=f"its caption is {_shown(caption)}")
            continue
        yield Captioned(
            id=f"{name}-{number}" if several else name,
            images=dict(images),
            caption=caption.strip(),
            metadata=plain(metadata),
        )


def _long(data: bytes) -> bool:
    return len(data) > MAX_DOCUMENT


def _shown(caption: Any) -> str:
    if caption is None or isinstance(caption, str):
        return "null" if caption is None else "empty"
    return f"of type {type(caption).__name__}, not a string"


def read_image(path: Path) -> bytes:
    """The bytes of a file; one more than MAX_DOCUMENT of a longer one. FoundryError where there is
    none: a pipe would be waited for."""
    if path.exists() and not path.is_file():
        what = "is a directory" if path.is_dir() else "is no file"
        raise FoundryError(f"image {path.name!r} is not readable: it {what}", "mend the index")
    try:
        with path.open("rb") as stream:
            return stream.read(MAX_DOCUMENT + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FoundryError(f"image {path.name!r} is not readable: {reason}") from error


def plain(value: Any) -> Any:
    """As JSON has it: no NaN (pandas writes it for nothing), times and other things as texts."""
    if isinstance(value, Mapping):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int):
        return value
    return value.isoformat() if isinstance(value, date) else f"<{type(value).__name__}>"
