"""Tars of documents."""

import json
from collections.abc import Iterator
from typing import Literal

from foundry_core.config.suggest import nearest
from foundry_core.data.sources.base import Broken, Document, PathSource, SourceRef, TextFormat
from foundry_core.data.sources.files import decoded, tar_members, tar_refs


class TextTars(TextFormat, PathSource):
    """Tars of documents; a member is plain text, or JSON {"text": ...} (whatever its extension
    says: published .json members hold plain text)."""

    format: Literal["text_tars"] = "text_tars"
    field: str = "text"

    def refs(self) -> list[SourceRef]:
        return tar_refs(self.path)

    def read(self, ref: SourceRef) -> Iterator[Document | Broken]:
        for name, data in tar_members(ref):
            yield self._document(name, data)

    def _document(self, name: str, data: bytes) -> Document | Broken:
        if data[:1] == b"{":
            try:
                record = json.loads(data)
            except ValueError:
                record = None  # plain text that happens to begin with a brace
            if isinstance(record, dict) and isinstance(record.get(self.field), str):
                return Document(id=name, text=record[self.field])
            if isinstance(record, dict):
                return Broken(
                    id=name,
                    reason=f"no string field {self.field!r}: {nearest(self.field, record)}",
                )
        return decoded(name, data)


FORMAT = TextTars
