"""Rows of one episode in LeRobot's data files, as NumPy arrays and words.

A data file of v3.0 holds many episodes, and its pictures may be most of 100 MB. So rows are found
by `episode_index` alone, in the row groups whose statistics do not exclude it; then columns are
read in small batches that end with the episode.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.parquet import ParquetFile

from foundry_core.config.suggest import nearest
from foundry_core.data.robot.episodes import UnusableEpisode
from foundry_core.data.sources.robot.steps import check_file

if TYPE_CHECKING:
    from foundry_core.data.sources.robot.lerobot_meta import Feature

_EPISODE = "episode_index"
_BATCH_ROWS = 64
_BUFFER = 1 << 20
_AGAIN = "fetch the file again, or remove the episode"


@dataclass(frozen=True, kw_only=True)
class EpisodeRows:
    """`length` neighbouring rows of a data file, the first of them at `first` within the row groups
    `groups`. names: the file's columns."""

    path: Path
    groups: tuple[int, ...]
    first: int
    length: int
    names: tuple[str, ...]

    def read(self, columns: Sequence[str]) -> "pa.Table":
        """These columns of the rows."""
        for name in columns:
            if name not in self.names:
                raise UnusableEpisode(
                    f"{self.path} has no column {name!r}", nearest(name, self.names)
                )
        parts, at = [], 0
        with _readable(self.path):
            # Neither buffered ahead nor by threads: both read whole columns of a row group at once.
            file = ParquetFile(self.path, buffer_size=_BUFFER, pre_buffer=False)
            batches = file.iter_batches(_BATCH_ROWS, self.groups, list(columns), use_threads=False)
            for batch in batches:
                start, stop = max(self.first - at, 0), self.first + self.length - at
                at += len(batch)
                if start < len(batch):
                    parts.append(batch.slice(start, min(stop, len(batch)) - start))
                if stop <= len(batch):
                    break
        return pa.Table.from_batches(parts)


def episode_rows(path: Path, episode: int) -> EpisodeRows:
    """Where an episode lies in a data file. UnusableEpisode where it is not there, or in pieces."""
    check_file(path)
    with _readable(path):
        file = ParquetFile(path)
        names = file.schema_arrow.names
        if _EPISODE not in names:
            raise UnusableEpisode(f"{path} has no column {_EPISODE!r}", nearest(_EPISODE, names))
        groups = tuple(_groups(file, episode))
        held = file.read_row_groups(list(groups), [_EPISODE])[_EPISODE] if groups else []
        rows = np.flatnonzero(np.asarray(held) == episode)
    if not len(rows):
        raise UnusableEpisode(f"{path} holds no row of episode {episode}", _AGAIN)
    first, last = int(rows[0]), int(rows[-1])
    if last - first + 1 != len(rows):
        raise UnusableEpisode(f"the rows of episode {episode} are scattered over {path}", _AGAIN)
    return EpisodeRows(path=path, groups=groups, first=first, length=len(rows), names=tuple(names))


def _groups(file: ParquetFile, episode: int) -> Iterator[int]:
    """Row groups that may hold the episode."""
    metadata = file.metadata
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        columns = (group.column(i) for i in range(group.num_columns))
        bounds = next(c.statistics for c in columns if c.path_in_schema == _EPISODE)
        if bounds is None or not bounds.has_min_max or bounds.min <= episode <= bounds.max:
            yield number


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise UnusableEpisode(f"{path} is not readable: {error}", _AGAIN) from error


def numbers(
    rows: EpisodeRows, name: str, column: "pa.ChunkedArray", feature: "Feature"
) -> np.ndarray:
    """A numeric column as float [L, D], lists within lists laid flat; whole numbers and truth
    values become float64. UnusableEpisode names the step that holds none, or too many."""
    values = _storage(column)
    per_step = 1
    depth = 0
    while _is_list(values.type):
        if depth == len(feature.shape):
            raise UnusableEpisode(
                f"{rows.path}: {name!r} has more axes than the shape {list(feature.shape)}",
                "mend its shape in meta/info.json",
            )
        size = feature.shape[depth]
        lengths = pc.fill_null(pc.list_value_length(values), -1).to_numpy(zero_copy_only=False)
        _refuse(rows, name, lengths != size, per_step, f"does not hold {size} values")
        values = _storage(values.flatten())
        per_step, depth = per_step * size, depth + 1
    _refuse(rows, name, values.is_null().to_numpy(zero_copy_only=False), per_step, "is null")
    array = values.to_numpy(zero_copy_only=False)
    if array.dtype.kind != "f":
        array = array.astype(np.float64)
    return array.reshape(rows.length, per_step)


def is_numeric(column: "pa.ChunkedArray") -> bool:
    """Whether `numbers` reads it."""
    kind = _storage(column.slice(0, 0)).type
    while _is_list(kind):
        kind = kind.value_type
    return pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)


def _storage(values: "pa.ChunkedArray | pa.Array") -> "pa.Array":
    """One array; of an extension type (Hugging Face's matrices) what it is stored as."""
    whole = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
    return whole.storage if isinstance(whole, pa.ExtensionArray) else whole


def _is_list(kind: "pa.DataType") -> bool:
    return (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


def _refuse(rows: EpisodeRows, name: str, bad: np.ndarray, per_step: int, what: str) -> None:
    if bad.any():
        step = int(np.argmax(bad)) // per_step
        raise UnusableEpisode(f"{rows.path}: {name!r} {what} at step {step}", _AGAIN)


def words(column: "pa.ChunkedArray") -> list[str]:
    """The distinct texts of a column of strings, in their order."""
    return [text for text in dict.fromkeys(column.to_pylist()) if text]


def spoken(column: "pa.ChunkedArray") -> dict[str, list[str]]:
    """The texts of `language_persistent` by their style; every row repeats the whole list."""
    found: dict[str, dict[str, None]] = {}
    for turn in column[0].as_py() or ():
        if turn["style"] and turn["content"]:
            found.setdefault(turn["style"], {})[turn["content"]] = None
    return {style: list(texts) for style, texts in found.items()}
