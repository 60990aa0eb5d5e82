"""Parquet tables with a column of text."""

from collections.abc import Iterator
from typing import Literal

from foundry_core.config.suggest import nearest
from foundry_core.data.sources.base import (
    Broken,
    Document,
    PathSource,
    Reads,
    SourceRef,
    TextFormat,
)
from foundry_core.data.sources.files import find_files
from foundry_core.errors import FoundryError


class Parquet(TextFormat, PathSource):
    """.parquet files, one document per row of the string column `field`."""

    format: Literal["parquet"] = "parquet"
    field: str = "text"

    def refs(self) -> list[SourceRef]:
        """One per row group."""
        from pyarrow.parquet import ParquetFile

        refs: list[SourceRef] = []
        for file in find_files(self.path, (".parquet",)):
            table = ParquetFile(file)
            columns = table.schema_arrow.names
            if self.field not in columns:
                raise FoundryError(
                    f"{str(file)!r} has no column {self.field!r}", nearest(self.field, columns)
                )
            refs += [
                SourceRef(name=f"{file.name}[{n}]", files=(str(file),), start=n, stop=n + 1)
                for n in range(table.num_row_groups)
            ]
        return refs

    def reads(self, ref: SourceRef) -> Reads:
        return Reads(ref.files)

    def read(self, ref: SourceRef) -> Iterator[Document | Broken]:
        from pyarrow.parquet import ParquetFile

        table = ParquetFile(ref.path).read_row_group(ref.start, columns=[self.field])
        for number, value in enumerate(table[self.field].to_pylist()):
            name = f"{ref.name}:{number}"
            if isinstance(value, str):
                yield Document(id=name, text=value)
            else:
                yield Broken(id=name, reason=f"{self.field!r} is {value!r}, not a string")


FORMAT = Parquet
