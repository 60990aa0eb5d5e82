"""Documents that are the rows of a table."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import Field

from foundry_core.data.sources.base import Broken, Document, Reads, SourceRef, TextFormat
from foundry_core.data.sources.tables import DamagedTable, TableSource, is_text
from foundry_core.errors import FoundryError


class TextRows(TextFormat, TableSource):
    """Base of the formats with a document per row: the string column `field`, which may lie in
    structs (`meta.text`)."""

    field: str = Field("text", description="that holds the text; `a.b` lies in an object")

    def refs(self) -> list[SourceRef]:
        """FoundryError where there is no such column, or none of strings."""
        pieces = self.pieces()
        try:
            kind = self.column_type(self.field)
        except DamagedTable:
            return pieces  # no file opens: reading each says why
        if not is_text(kind):
            raise FoundryError(
                f"column {self.field!r} of {self.path!r} holds {kind}, not strings",
                f"strings: {', '.join(self._text_columns()) or 'none'}",
            )
        return pieces

    def reads(self, ref: SourceRef) -> Reads:
        return Reads(ref.files)

    def read(self, ref: SourceRef) -> Iterator[Document | Broken]:
        try:
            for rows in self.rows(ref, (self.field,)):
                column = rows.column(self.field)
                for place, value in enumerate(column, rows.first):
                    yield _document(f"{ref.path.name}:{place}", self.field, value)
        except DamagedTable as error:
            yield Broken(id=ref.name, reason=error.message)

    def fields(self) -> Mapping[str, str]:
        return self.column_types()

    def _text_columns(self) -> list[str]:
        return [name for name in self.column_types() if is_text(self.column_type(name))]


def _document(name: str, field: str, value: Any) -> Document | Broken:
    """value: an Arrow scalar."""
    try:
        text = value.as_py()
    except UnicodeDecodeError as error:
        return Broken(id=name, reason=f"{field!r} is not UTF-8: {error.reason}")
    if text is None:
        return Broken(id=name, reason=f"{field!r} is null")
    return Document(id=name, text=text)
