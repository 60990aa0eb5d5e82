"""Plain text files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from foundry_core.data.sources.base import (
    Broken,
    Document,
    PathSource,
    Reads,
    SourceRef,
    TextFormat,
)
from foundry_core.data.sources.files import PIECE_BYTES, decoded, find_files, groups_by_size


class PlainText(TextFormat, PathSource):
    """.txt and .md files, one document each."""

    format: Literal["txt"] = "txt"

    def refs(self) -> list[SourceRef]:
        sized = [(str(f), f.stat().st_size) for f in find_files(self.path, (".txt", ".md"))]
        groups = groups_by_size(sized, PIECE_BYTES)
        return [SourceRef(name=Path(group[0]).name, files=group) for group in groups]

    def reads(self, ref: SourceRef) -> Reads:
        return Reads(ref.files)

    def read(self, ref: SourceRef) -> Iterator[Document | Broken]:
        for file in map(Path, ref.files):
            yield decoded(file.name, file.read_bytes())


FORMAT = PlainText
