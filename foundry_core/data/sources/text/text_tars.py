"""Tars of documents."""

import json
from typing import Literal

from pydantic import Field

from foundry_core.data.sources.base import Broken, Document
from foundry_core.data.sources.files import DocumentTars, decoded, text_field


class TextTars(DocumentTars):
    """Tars of documents; a member is plain text, or JSON {"text": ...} (whatever its extension
    says: published .json members hold plain text)."""

    format: Literal["text_tars"] = "text_tars"
    field: str = Field("text", description="of a JSON member, that holds the text")

    def _document(self, name: str, data: bytes) -> Document | Broken:
        if data[:1] == b"{":
            try:
                record = json.loads(data)
            except (ValueError, RecursionError):
                record = None  # plain text that happens to begin with a brace
            if isinstance(record, dict):
                return text_field(name, record, self.field)
        return decoded(name, data)


FORMAT = TextTars
