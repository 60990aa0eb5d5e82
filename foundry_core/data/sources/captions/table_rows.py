"""Captioned images that are the rows of a table."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import Field

from foundry_core.data.sources.base import Broken, Captioned, CaptionFormat, SourceRef
from foundry_core.data.sources.captions.items import read_image, sample_id, samples
from foundry_core.data.sources.tables import (
    DamagedTable,
    Rows,
    TableSource,
    is_image,
    is_text,
    leaf_types,
)
from foundry_core.errors import FoundryError
from foundry_core.identity.sources import source_file


class ImageRows(CaptionFormat, TableSource):
    """Base of the formats with images and captions in a row.

    image: a column of bytes, of struct<bytes, path> as the library `datasets` has it, or of paths
    inside the source's folder; a list of these is several images. caption: a column of strings or
    of lists of strings, or several columns; columns inside of structs by path (`meta.caption`).
    """

    image: str = Field(
        "image",
        description="column of bytes, of struct<bytes, path> or of paths; one list of these is "
        "several images",
    )
    caption: str | tuple[str, ...] = Field(
        "caption",
        min_length=1,
        description="column of strings or lists of strings, or several columns; `a.b` lies in a "
        "struct",
    )
    captions: Literal["each", "first"] = Field(
        "each", description="several captions: a sample for each, or the first"
    )
    metadata: tuple[str, ...] = Field((), description="columns to keep beside the image")

    def refs(self) -> list[SourceRef]:
        """FoundryError where a column is not there, or holds what cannot be one."""
        pieces = self.pieces()
        try:
            image = self.column_type(self.image)
            kinds = {name: self.column_type(name) for name in (*self._captions, *self.metadata)}
        except DamagedTable:
            return pieces  # no file opens: reading each says why
        if not is_image(image) and not is_text(image):
            raise FoundryError(
                f"column {self.image!r} of {self.path!r} holds {image}, no images",
                "name a column of bytes, of struct<bytes, path>, or of paths as `image`",
            )
        for name in self._captions:
            if not is_text(kinds[name]) and not is_text(getattr(kinds[name], "value_type", image)):
                raise FoundryError(
                    f"column {name!r} of {self.path!r} holds {kinds[name]}, no captions",
                    "name a column of strings as `caption`",
                )
        return pieces

    def items(self, ref: SourceRef) -> Iterator[Captioned | Broken]:
        try:
            for rows in self.rows(ref, (self.image, *self._captions, *self.metadata)):
                yield from self._items(ref, rows)
        except DamagedTable as error:
            yield Broken(id=ref.name, reason=error.message)

    def fields(self) -> Mapping[str, str]:
        return self.column_types()

    def has_images(self) -> bool:
        """Whether a column holds images; False where no file opens, or a split must be named."""
        try:
            return any(is_image(kind) for kind in leaf_types(self.table_schema()).values())
        except FoundryError:
            return False

    @property
    def _captions(self) -> tuple[str, ...]:
        return (self.caption,) if isinstance(self.caption, str) else self.caption

    def _items(self, ref: SourceRef, rows: Rows) -> Iterator[Captioned | Broken]:
        file = self.inside(ref.path)
        images = rows.column(self.image)
        words = [rows.column(name) for name in self._captions]
        kept = {name: rows.column(name) for name in self.metadata}
        for row in range(len(images)):
            place = f"{file}:{rows.first + row}"
            try:
                files = self._files_of(images[row].as_py())
                captions = _texts([one[row].as_py() for one in words])
                metadata = {name: one[row].as_py() for name, one in kept.items()}
            except (FoundryError, ValueError) as error:
                reason = error.message if isinstance(error, FoundryError) else str(error)
                yield Broken(id=place, reason=reason)
                continue
            if self.captions == "first":
                captions = captions[:1]
            name = sample_id(file.rpartition(".")[0], f"{rows.first + row:08d}")
            yield from samples(name, place, files, captions, metadata)

    def _files_of(self, value: Any) -> dict[str, bytes]:
        """{name: bytes} of a row's image, or of its several images."""
        if isinstance(value, list) and len(value) != 1:
            return {f"image{n}": self._bytes_of(one) for n, one in enumerate(value)}
        return {"image": self._bytes_of(value[0] if isinstance(value, list) else value)}

    def _bytes_of(self, value: Any) -> bytes:
        held = value.get("bytes") if isinstance(value, dict) else value
        if held is None and isinstance(value, dict):
            held = value.get("path")  # as `datasets` has it for what it did not copy
        if isinstance(held, bytes):
            return held
        if not isinstance(held, str):
            raise FoundryError(f"{self.image!r} is null or without bytes")
        return read_image(source_file(self.root if self.root.is_dir() else self.root.parent, held))


def _texts(columns: list[Any]) -> list[Any]:
    """The captions of a row, out of lists too."""
    return [one for value in columns for one in (value if isinstance(value, list) else [value])]
