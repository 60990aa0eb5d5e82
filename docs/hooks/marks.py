"""Pieces of Markdown that the generated pages are made of."""

import inspect
import re
from collections.abc import Iterable, Sequence

_CODE = re.compile(r"(``.+?``|`[^`\n]+`)")
_SPECIAL = re.compile(r"([*_\[\]\\])")


def text(words: str) -> str:
    """Plain words, in which backticks mark code, as Markdown of one paragraph or one cell."""
    return "".join(_escaped(part, number % 2) for number, part in enumerate(_CODE.split(words)))


def _escaped(part: str, is_code: int) -> str:
    if is_code:
        return f"<code>{_entities(part.strip('`'))}</code>"
    return _SPECIAL.sub(r"\\\1", _entities(part))


def _entities(part: str) -> str:
    for sign, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "&#124;")):
        part = part.replace(sign, entity)
    return part


def code(words: str) -> str:
    """As code, also within a table."""
    return f"<code>{_entities(words)}</code>" if words else ""


def paragraphs(docstring: str | None) -> str:
    """A docstring: paragraphs, and indented blocks as code."""
    blocks = re.split(r"\n\s*\n", inspect.cleandoc(docstring or ""))
    return "\n\n".join(_block(block) for block in blocks if block.strip())


def _block(block: str) -> str:
    lines = block.strip("\n").splitlines()
    if lines and all(line.startswith("    ") for line in lines):
        return "```\n" + "\n".join(line[4:] for line in lines) + "\n```"
    return text(" ".join(" ".join(lines).split()))


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """rows: cells that are Markdown already."""
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def anchor(path: str) -> str:
    """Of a heading: `model.head[flow].times` → model-head-flow-times."""
    return re.sub(r"[^a-z0-9_]+", "-", path.lower()).strip("-")
