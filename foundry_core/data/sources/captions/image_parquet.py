"""Parquet tables of images and captions."""

from pathlib import Path
from typing import Literal

from foundry_core.data.sources.captions.table_rows import ImageRows
from foundry_core.data.sources.tables import ParquetFiles


class ImageParquet(ImageRows, ParquetFiles):
    """.parquet files with images and captions in their rows, by row groups."""

    format: Literal["image_parquet"] = "image_parquet"

    @classmethod
    def matches(cls, path: Path) -> bool:
        return ParquetFiles.matches(path) and cls(path=str(path)).has_images()


FORMAT = ImageParquet
