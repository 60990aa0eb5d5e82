"""Files of JSON objects, one per line."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from pydantic import Field

from foundry_core.data.sources.base import (
    MAX_DOCUMENT,
    Broken,
    Document,
    PathSource,
    Reads,
    SourceRef,
    TextFormat,
)
from foundry_core.data.sources.files import find_files, has_files, text_field
from foundry_core.data.sources.lines import DamagedFile, json_fields, line_refs, lines

_ENDINGS = (
    *(".jsonl", ".jsonl.gz", ".jsonl.zst", ".ndjson", ".ndjson.gz", ".ndjson.zst"),
    *(".json.gz", ".json.zst"),
)


class JsonLines(TextFormat, PathSource):
    """.jsonl and .ndjson files, plain, .gz or .zst, and .json.gz and .json.zst of lines (Dolma,
    DCLM): one document per line under `field`, which may be a path (`meta.text`)."""

    format: Literal["jsonl"] = "jsonl"
    field: str = Field("text", description="that holds the text; `a.b` lies in an object")

    @classmethod
    def matches(cls, path: Path) -> bool:
        return has_files(path, _ENDINGS)

    def refs(self) -> list[SourceRef]:
        """Plain files by byte ranges that begin at lines, .zst by its frames, .gz whole."""
        return [ref for file in find_files(self.path, _ENDINGS) for ref in line_refs(file)]

    def reads(self, ref: SourceRef) -> Reads:
        return Reads(ref.files)

    def read(self, ref: SourceRef) -> Iterator[Document | Broken]:
        try:
            for name, line in lines(ref):
                if line.strip():
                    yield self._document(name, line)
        except DamagedFile as error:
            yield Broken(id=ref.name, reason=f"{error.message}; what follows is lost")

    def fields(self) -> Mapping[str, str]:
        return json_fields(self.refs())

    def _document(self, name: str, line: bytes) -> Document | Broken:
        if len(line) > MAX_DOCUMENT:
            return Broken(id=name, reason=f"the line is longer than {MAX_DOCUMENT} bytes")
        try:
            record = json.loads(line)
        except RecursionError:
            return Broken(id=name, reason="JSON nested too deep")
        except ValueError as error:
            return Broken(id=name, reason=f"not JSON: {error}")
        return text_field(name, record, self.field)


FORMAT = JsonLines
