"""A folder of images with their captions in JSON lines, as the library `datasets` calls it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from foundry_core.data.sources.base import (
    MAX_DOCUMENT,
    Broken,
    Captioned,
    CaptionFormat,
    PathSource,
    SourceRef,
)
from foundry_core.data.sources.captions.items import read_image, sample_id, samples
from foundry_core.data.sources.files import look, value_at
from foundry_core.data.sources.lines import DamagedFile, json_fields, line_refs, lines
from foundry_core.errors import FoundryError
from foundry_core.identity.sources import source_file, source_files

_INDEXES = ("metadata.jsonl", "captions.jsonl")


class ImageFolder(CaptionFormat, PathSource):
    """A folder with `metadata.jsonl` or `captions.jsonl`, or such folders in it (one for each
    split): lines of {"file_name": ..., "text": ...}, names relative to where the lines lie.

    image: where a line holds a name, or a list of names. caption: where it holds a string or a list
    of strings; all else is metadata.
    """

    format: Literal["imagefolder"] = "imagefolder"
    index: str = Field("", description="another name than metadata.jsonl or captions.jsonl")
    image: str = Field(
        "file_name", description="where a line holds a file's name, or a list of names"
    )
    caption: str = Field("text", description="where a line holds a text, or a list of texts")
    captions: Literal["each", "first"] = Field(
        "each", description="several captions: a sample for each, or the first"
    )

    @classmethod
    def matches(cls, path: Path) -> bool:
        return path.is_dir() and any(file.name in _INDEXES for file in look(path))

    def refs(self) -> list[SourceRef]:
        """By byte ranges of the lines."""
        return [ref for index in self._indexes() for ref in line_refs(index)]

    def items(self, ref: SourceRef) -> Iterator[Captioned | Broken]:
        folder = ref.path.parent.relative_to(self.root)
        try:
            for place, line in lines(ref):
                if line.strip():
                    yield from self._row(str(folder / place), folder, line)
        except DamagedFile as error:
            yield Broken(id=ref.name, reason=f"{error.message}; what follows is lost")

    def fields(self) -> Mapping[str, str]:
        return json_fields(self.refs())

    def _indexes(self) -> list[Path]:
        known = (self.index,) if self.index else _INDEXES
        names = source_files(self.root) if self.root.is_dir() else []
        for name in known:
            found = [one for one in names if one.rpartition("/")[2] == name]
            if found:
                return [self.root / one for one in found]
        raise FoundryError(
            f"{self.path!r} is no folder with {' or '.join(known)} in it", "check path and index"
        )

    def _row(self, place: str, folder: Path, line: bytes) -> Iterator[Captioned | Broken]:
        try:
            yield from self._samples(place, folder, line)
        except (ValueError, RecursionError) as error:
            yield Broken(id=place, reason=f"not JSON: {error}")
        except FoundryError as error:
            yield Broken(id=place, reason=error.message)

    def _samples(self, place: str, folder: Path, line: bytes) -> Iterator[Captioned | Broken]:
        if len(line) > MAX_DOCUMENT:
            raise FoundryError(f"the line is longer than {MAX_DOCUMENT} bytes")
        row = json.loads(line)
        named = value_at(row, self.image)
        names = named if isinstance(named, list) else [named]
        if not names or not all(isinstance(name, str) and name for name in names):
            raise FoundryError(f"it names no image under {self.image!r}")
        files = [read_image(source_file(self.root, str(folder / name))) for name in names]
        images = {"image" if len(files) == 1 else f"image{n}": one for n, one in enumerate(files)}
        said = value_at(row, self.caption)
        captions = said if isinstance(said, list) else [said]
        if self.captions == "first":
            captions = captions[:1]
        rest = {k: v for k, v in row.items() if k not in (self.image, self.caption)}
        yield from samples(sample_id(place), place, images, captions, rest)


FORMAT = ImageFolder
