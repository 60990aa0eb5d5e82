"""Labels and tasks as short as a narrow place needs, with a legend where they lose anything."""

import re
from collections.abc import Sequence

_WORD_END = re.compile(r"[-_/. ]")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[-_/. ])")


def without_common_start(labels: Sequence[str]) -> dict[str, str]:
    """label → it without the words that all begin with; as it is where nothing would be left."""
    start = 0
    if len(labels) > 1:
        first, last = min(labels), max(labels)
        same = next(
            (i for i, (x, y) in enumerate(zip(first, last, strict=False)) if x != y), len(first)
        )
        ends = [found.end() for found in _WORD_END.finditer(first[:same])]
        start = ends[-1] if ends else 0
    if any(len(label) <= start for label in labels):
        start = 0
    return {label: label[start:] for label in labels}


def folded(name: str, width: int) -> str:
    """In lines of at most `width`, broken between words (also those of CamelCase)."""
    lines = [""]
    for word in _HUMP.split(name.removesuffix("-v3")):
        if len(lines[-1]) + len(word) > width and lines[-1]:
            lines.append("")
        lines[-1] += word
    return "\n".join(lines)
