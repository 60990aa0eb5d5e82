"""Parquet tables with a column of text."""

from typing import Literal

from foundry_core.data.sources.tables import ParquetFiles
from foundry_core.data.sources.text.table_rows import TextRows


class Parquet(TextRows, ParquetFiles):
    """.parquet files, one document per row of the string column `field`, by row groups."""

    format: Literal["parquet"] = "parquet"


FORMAT = Parquet
