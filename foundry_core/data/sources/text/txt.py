"""Plain text files."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from foundry_core.data.sources.base import (
    MAX_DOCUMENT,
    Broken,
    Document,
    PathSource,
    Reads,
    SourceRef,
    TextFormat,
)
from foundry_core.data.sources.files import (
    PIECE_BYTES,
    decoded,
    find_files,
    groups_by_size,
    look,
)

_ENDINGS = (".txt", ".md")


class PlainText(TextFormat, PathSource):
    """.txt and .md files, one document each."""

    format: Literal["txt"] = "txt"

    @classmethod
    def matches(cls, path: Path) -> bool:
        """Texts and nothing else: many a dataset has a README.md."""
        names = [file.name for file in look(path)]
        return bool(names) and all(name.endswith(_ENDINGS) for name in names)

    def refs(self) -> list[SourceRef]:
        sized = [(str(f), f.stat().st_size) for f in find_files(self.path, _ENDINGS)]
        groups = groups_by_size(sized, PIECE_BYTES)
        return [SourceRef(name=Path(group[0]).name, files=group) for group in groups]

    def reads(self, ref: SourceRef) -> Reads:
        return Reads(ref.files)

    def read(self, ref: SourceRef) -> Iterator[Document | Broken]:
        for file in map(Path, ref.files):
            with file.open("rb") as stream:
                data = stream.read(MAX_DOCUMENT + 1)
            if len(data) > MAX_DOCUMENT:
                yield Broken(id=file.name, reason=f"the file is longer than {MAX_DOCUMENT} bytes")
            else:
                yield decoded(file.name, data)


FORMAT = PlainText
