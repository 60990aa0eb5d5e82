"""Files of JSON objects, one per line."""

import gzip
import json
import zlib
from collections.abc import Iterator
from typing import Literal

from foundry_core.data.sources.base import (
    Broken,
    Document,
    PathSource,
    Reads,
    SourceRef,
    TextFormat,
)
from foundry_core.data.sources.files import PIECE_BYTES, find_files, line_ranges, text_field
from foundry_core.errors import FoundryError


class JsonLines(TextFormat, PathSource):
    """.jsonl or .jsonl.gz files, one document per line under `field`."""

    format: Literal["jsonl"] = "jsonl"
    field: str = "text"

    def refs(self) -> list[SourceRef]:
        """Plain files by byte ranges that begin at lines; compressed ones whole (they cannot
        seek)."""
        refs: list[SourceRef] = []
        for file in find_files(self.path, (".jsonl", ".jsonl.gz")):
            files = (str(file),)
            if file.name.endswith(".gz"):
                refs.append(SourceRef(name=file.name, files=files))
                continue
            refs += [
                SourceRef(name=f"{file.name}@{start}", files=files, start=start, stop=stop)
                for start, stop in line_ranges(file, PIECE_BYTES)
            ]
        return refs

    def reads(self, ref: SourceRef) -> Reads:
        return Reads(ref.files)

    def read(self, ref: SourceRef) -> Iterator[Document | Broken]:
        lines = _packed_lines(ref) if ref.path.name.endswith(".gz") else _lines(ref)
        for name, line in lines:
            if line.strip():
                yield self._document(name, line)

    def _document(self, name: str, line: bytes) -> Document | Broken:
        try:
            record = json.loads(line)
        except ValueError as error:
            return Broken(id=name, reason=f"not JSON: {error}")
        return text_field(name, record, self.field)


def _lines(ref: SourceRef) -> Iterator[tuple[str, bytes]]:
    """(name, line) of a byte range."""
    with ref.path.open("rb") as stream:
        stream.seek(ref.start)
        position = ref.start
        while position < ref.stop:
            line = stream.readline()
            yield f"{ref.path.name}@{position}", line
            position += len(line)


def _packed_lines(ref: SourceRef) -> Iterator[tuple[str, bytes]]:
    with gzip.open(ref.path, "rb") as stream:
        try:
            for number, line in enumerate(stream, 1):
                yield f"{ref.path.name}:{number}", line
        except (OSError, EOFError, zlib.error) as error:
            raise FoundryError(f"{str(ref.path)!r} is truncated or damaged: {error}") from error


FORMAT = JsonLines
