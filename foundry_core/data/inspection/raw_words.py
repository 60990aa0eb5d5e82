"""`foundry data inspect` of raw text and of raw captioned images: how much there is, the fields, a
few samples, and the source of a recipe to begin with.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from foundry_core.data.convert.read import read_captioned, read_documents
from foundry_core.data.images import image_format, image_size
from foundry_core.data.sources.base import (
    Broken,
    Captioned,
    CaptionFormat,
    Document,
    SourceRef,
    TextFormat,
)
from foundry_core.errors import FoundryError, printable

Source = TextFormat | CaptionFormat
_LOOKED_AT, _SAMPLES, _SHOWN = 1000, 3, 200
# Where others keep a text, a caption and an image, the most usual first.
_TEXTS = ("text", "content", "raw_content", "body", "document", "markdown")
_CAPTIONS = ("caption", "text", "captions", "sentences", "alt_text", "title", "prompt")
_IMAGES = ("image", "jpg", "png", "file_name", "images", "image_path", "path")


@dataclass(frozen=True, kw_only=True)
class RawWords:
    """What a source of texts or captioned images holds.

    read: records that were looked into, of them `skipped` with their reasons. records: how many
    there are; `exact`, or estimated from the bytes of the piece that was read; None: not known
    without reading more. recipe: YAML of a stage's `source`.
    """

    format: str
    path: str
    pieces: int
    bytes: int
    records: int | None
    exact: bool
    read: int
    characters: float
    empty: int
    images: Mapping[str, int]
    fields: Mapping[str, str]
    samples: tuple[str, ...]
    skipped: tuple[str, ...]
    recipe: str = field(default="", repr=False)


def raw_words(source: Source, path: str, *, guess: bool = True) -> RawWords:
    """Of the first records. guess: where no record has the fields that the format's defaults name,
    those that are usual elsewhere. FoundryError where a source holds nothing."""
    fields = dict(source.fields())
    source = _fitting(source, fields) if guess and fields else source
    refs = source.refs()
    if not refs:
        raise FoundryError(f"{path} holds no records", "check the path, or name another --from")
    found = list(islice(_items(source, refs[0]), _LOOKED_AT + 1))
    whole = len(found) <= _LOOKED_AT
    found = found[:_LOOKED_AT]
    good = [item for item in found if not isinstance(item, Broken)]
    words = [_words(item) for item in good]
    size = sum(os.path.getsize(file) for file in _files(refs))
    records, exact = _count(source, refs, len(found), size, whole)
    return RawWords(
        format=source.format,
        path=path,
        pieces=len(refs),
        bytes=size,
        records=records,
        exact=exact,
        read=len(found),
        characters=sum(map(len, words)) / max(1, len(words)),
        empty=sum(not text.strip() for text in words),
        images=_pictures(good),
        fields=fields,
        samples=tuple(printable(text[:_SHOWN]) for text in words[:_SAMPLES]),
        skipped=tuple(f"{item.id}: {item.reason}" for item in found if isinstance(item, Broken)),
        recipe=draft_source(source),
    )


def _items(source: Source, ref: SourceRef) -> Iterator[Document | Captioned | Broken]:
    if isinstance(source, TextFormat):
        return read_documents(source, ref)
    return read_captioned(source, ref)


def _words(item: Document | Captioned | Broken) -> str:
    if isinstance(item, Captioned):
        return item.caption
    if isinstance(item, Document):
        return item.text if item.tokens is None else " ".join(map(str, item.tokens[:_SHOWN]))
    return ""


def _fitting(source: Source, fields: dict[str, str]) -> Source:
    """With the names of fields that are there, where the source's own are not."""
    changed: dict[str, Any] = {}
    for option, usual in (
        ("field", _TEXTS), ("caption", _CAPTIONS), ("image", _IMAGES)
    ):  # fmt: skip
        named = getattr(source, option, None)
        if isinstance(named, str) and named not in fields:
            lowered = {name.lower(): name for name in reversed(fields)}
            known = [lowered[name] for name in usual if name in lowered]
            if known:
                changed[option] = known[0]
    return source.model_copy(update=changed)


def _files(refs: list[SourceRef]) -> list[str]:
    named = dict.fromkeys(file for ref in refs for file in ref.files)
    return [file for file in named if Path(file).is_file()]


def _count(
    source: Source, refs: list[SourceRef], read: int, size: int, whole: bool
) -> tuple[int | None, bool]:
    """(records, exact): counted where files say it or one piece is all; else by the share of bytes
    that the piece has."""
    counted = getattr(source, "counted", None)
    if counted is not None:
        return counted(), True
    if whole and len(refs) == 1:
        return read, True
    first = refs[0]
    plain = first.stop > first.start and not first.name.endswith(".tar")
    sized = first.stop - first.start if plain else 0
    if not whole or not 0 < sized <= size:
        return None, False
    return round(read * size / sized), False


def _pictures(items: list[Any]) -> dict[str, int]:
    """ "jpg 480 x 640" → how many; what cannot be decoded is "not readable"."""
    counts: dict[str, int] = {}
    for item in items[:_LOOKED_AT]:
        for name, data in getattr(item, "images", {}).items():
            try:
                height, width = image_size(data, name)
                what = f"{image_format(data) or 'other'} {height} x {width}"
            except FoundryError:
                what = "not readable"
            counts[what] = counts.get(what, 0) + 1
    return dict(sorted(counts.items(), key=lambda one: -one[1]))


def draft_source(source: Source) -> str:
    """YAML of a stage that converts a source, with its options as they are."""
    options = {"format": source.format, **source.model_dump(exclude_defaults=True, mode="json")}
    kind = "convert_text" if isinstance(source, TextFormat) else "convert_captions"
    stage: dict[str, Any] = {"kind": kind, "recipe": {"source": options}}
    if isinstance(source, TextFormat) and source.token_ids is None:
        stage["inputs"] = {"tokenizer": "tokenizer"}
    return yaml.safe_dump({"data": stage}, sort_keys=False)


def render_words(found: RawWords) -> RenderableType:
    """Tables of the source and of its fields, samples, and the draft."""
    head = Table(title=escape(found.path), title_justify="left", show_header=False)
    head.add_row("format", found.format)
    head.add_row("files", f"{found.bytes:,} bytes; {found.pieces} pieces for workers")
    number = "not known" if found.records is None else f"{found.records:,}"
    about = "" if found.exact or found.records is None else "about "
    head.add_row("records", f"{about}{number}; looked into {found.read:,}")
    head.add_row("characters", f"{found.characters:,.0f} in the mean; {found.empty} empty")
    for what, count in list(found.images.items())[:10]:
        head.add_row("images", f"{count} {what}")
    for reason in found.skipped[:5]:
        head.add_row("[red]skipped", escape(reason))
    if len(found.skipped) > 5:
        head.add_row("[red]skipped", f"{len(found.skipped) - 5} more")
    parts: list[RenderableType] = [head]
    if found.fields:
        table = Table("field", "type", title="fields", title_justify="left")
        for name, kind in found.fields.items():
            table.add_row(escape(name), escape(kind))
        parts.append(table)
    parts += [Text(f"\n{text}") for text in found.samples]
    return Group(*parts, Text("\nstage of a pipeline:\n" + found.recipe))
