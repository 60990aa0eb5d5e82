"""The files of a LeRobot v3.0 dataset as they grow: the next one begins when one is full.

Tables and each camera's videos roll over by themselves; an episode is never split.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow.parquet import ParquetWriter

from foundry_core.data.video import VideoWriter

CHUNK_FILES = 1000
DATA_MB, VIDEO_MB = 100, 200
_NUMBERED = "chunk-{chunk_index:03d}/file-{file_index:03d}"
DATA_PATH = f"data/{_NUMBERED}.parquet"
VIDEO_PATH = f"videos/{{video_key}}/{_NUMBERED}.mp4"
EPISODES_PATH = f"meta/episodes/{_NUMBERED}.parquet"


@dataclass(frozen=True)
class Place:
    """Number of a file."""

    chunk: int = 0
    file: int = 0

    def following(self) -> "Place":
        last = self.file == CHUNK_FILES - 1
        return Place(self.chunk + 1, 0) if last else Place(self.chunk, self.file + 1)

    def path(self, root: Path, template: str, key: str = "") -> Path:
        return root / template.format(chunk_index=self.chunk, file_index=self.file, video_key=key)


class Tables:
    """Parquet files of one schema; each table written is a row group of its own."""

    def __init__(self, root: Path, template: str) -> None:
        self._root, self._template = root, template
        self._at = Place()
        self._writer: ParquetWriter | None = None

    def place(self) -> Place:
        """Where the next table goes."""
        if self._writer is not None and self._path().stat().st_size >= DATA_MB * 2**20:
            self.close()
            self._at = self._at.following()
        return self._at

    def write(self, table: pa.Table) -> None:
        """Into the file that `place` named."""
        if self._writer is None:
            self._path().parent.mkdir(parents=True, exist_ok=True)
            # No dictionaries: of pictures, one would hold the first thousand as a single page.
            self._writer = ParquetWriter(self._path(), table.schema, use_dictionary=False)
        self._writer.write_table(table)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _path(self) -> Path:
        return self._at.path(self._root, self._template)


class Videos:
    """The mp4 files of one camera."""

    def __init__(self, root: Path, camera: str, rate: Fraction, codec: str) -> None:
        self._root, self._camera, self._rate, self._codec = root, camera, rate, codec
        self._at = Place()
        self._writer: VideoWriter | None = None

    def write(self, pictures: Sequence[np.ndarray]) -> dict[str, int | float]:
        """Appends an episode's pictures; where they are, as the columns of its row."""
        if self._writer is not None and self._writer.bytes >= VIDEO_MB * 2**20:
            self.close()
            self._at = self._at.following()
        if self._writer is None:
            path = self._at.path(self._root, VIDEO_PATH, self._camera)
            self._writer = VideoWriter(path, self._rate, self._codec)
        first = self._writer.frames
        for picture in pictures:
            self._writer.add(picture)
        return {
            "chunk_index": self._at.chunk,
            "file_index": self._at.file,
            "from_timestamp": float(first / self._rate),
            "to_timestamp": float(self._writer.frames / self._rate),
        }

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
