"""What the library `datasets` saves on disk, with images and captions."""

from pathlib import Path
from typing import Literal

from foundry_core.data.sources.captions.table_rows import ImageRows
from foundry_core.data.sources.tables import SavedDataset


class ImageArrow(ImageRows, SavedDataset):
    """A folder of `save_to_disk` (`split` of several), or .arrow files, with images and captions in
    their rows."""

    format: Literal["image_arrow"] = "image_arrow"

    @classmethod
    def matches(cls, path: Path) -> bool:
        return SavedDataset.matches(path) and cls(path=str(path)).has_images()


FORMAT = ImageArrow
