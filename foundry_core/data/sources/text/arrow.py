"""What the library `datasets` saves on disk, with a column of text."""

from typing import Literal

from foundry_core.data.sources.tables import SavedDataset
from foundry_core.data.sources.text.table_rows import TextRows


class Arrow(TextRows, SavedDataset):
    """A folder of `save_to_disk` (`split` of several), or .arrow files: one document per row of the
    string column `field`."""

    format: Literal["arrow"] = "arrow"


FORMAT = Arrow
