"""What a LeRobot dataset says of itself: meta/info.json, its episodes and tasks, v2.1 and v3.0.

info.json names every other file by templates; nothing of them is believed but plain numbers and the
name of a camera. No pyarrow while planning: info.json alone is read then.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import ConfigDict, Field

from foundry_core.config.validation import read_as
from foundry_core.data.config import Size
from foundry_core.data.sources.files import marked_below
from foundry_core.errors import FoundryError
from foundry_core.files import Signature, signature
from foundry_core.identity.sources import source_file, source_files
from foundry_core.pipeline.stage import Config

if TYPE_CHECKING:
    import pyarrow as pa

OLD, NEW = "v2.1", "v3.0"
# Features that every dataset has.
COUNTERS = ("timestamp", "frame_index", "task_index")
INFO = "meta/info.json"
# Not LeRobot's: a line per episode, {"episode_index", "instructions": {kind: texts}}.
INSTRUCTIONS = "meta/instructions.jsonl"
_SAID = "instructions"
_AGAIN = "fetch the dataset again, or export it again with LeRobot"
_FIELDS = {
    OLD: {"episode_chunk", "episode_index", "video_key"},
    NEW: {"chunk_index", "file_index", "video_key"},
}
_SPEC = re.compile(r"(0?[0-9]{1,2}d?)?")
_CHANNELS = (1, 3, 4)


class Feature(Config):
    """One entry of `features`. info: of cameras, their video."""

    model_config = ConfigDict(extra="ignore")
    dtype: str
    shape: tuple[Annotated[int, Field(ge=0)], ...]
    names: Any = None
    info: dict[str, Any] | None = None

    @property
    def is_camera(self) -> bool:
        return self.dtype in ("image", "video")

    @property
    def is_depth(self) -> bool:
        info = self.info or {}
        return bool(info.get("is_depth_map") or info.get("video.is_depth_map"))

    @property
    def is_numeric(self) -> bool:
        return not self.is_camera and self.dtype not in ("string", "language")

    @property
    def width(self) -> int:
        """Numbers per step."""
        return math.prod(self.shape)

    @property
    def dimensions(self) -> tuple[str, ...]:
        """What its numbers are called, one by one; () where the names are none, or of axes: a list,
        or one in a mapping such as {"motors": [...]}."""
        named = self.names
        while isinstance(named, dict) and len(named) == 1:
            named = next(iter(named.values()))
        listed = isinstance(named, list) and all(isinstance(one, str) for one in named)
        return tuple(named) if listed and len(named) == self.width else ()

    @property
    def size(self) -> Size | None:
        """(height, width) of a camera: by the axes' names, else by where the channels can be."""
        names = [str(n) for n in self.names] if isinstance(self.names, list) else []
        if len(self.shape) == len(names) and {"height", "width"} <= set(names):
            return self.shape[names.index("height")], self.shape[names.index("width")]
        if len(self.shape) != 3:
            return None
        first = self.shape[0] in _CHANNELS and self.shape[2] not in _CHANNELS
        height, width = self.shape[1:] if first else self.shape[:2]
        return height, width


class Info(Config):
    """The part of meta/info.json that reading needs."""

    model_config = ConfigDict(extra="ignore")
    codebase_version: str
    fps: float = Field(gt=0)
    chunks_size: int = Field(1000, ge=1)
    data_path: str
    video_path: str | None = None
    features: dict[str, Feature] = Field(min_length=1)


class _Version(Config):
    model_config = ConfigDict(extra="ignore")
    codebase_version: str = ""


@dataclass(frozen=True, kw_only=True)
class EpisodeRow:
    """Where one episode lies. values: of its row in the episodes' table, by column."""

    index: int
    values: Mapping[str, Any]

    @property
    def name(self) -> str:
        return f"episode_{self.index:06d}"


@dataclass(frozen=True, kw_only=True)
class Meta:
    """tasks: text by task_index. rows: a table with one row per episode. instructions: {episode:
    {kind: texts}}, of datasets that `foundry data export` wrote."""

    root: Path
    info: Info
    tasks: Mapping[int, str]
    rows: "pa.Table"
    instructions: Mapping[int, Mapping[str, list[str]]]

    def episode(self, number: int) -> EpisodeRow:
        """The number-th row of the table."""
        values = self.rows.slice(number, 1).to_pylist()[0]
        values["tasks"] = [_text(one) for one in values.get("tasks") or ()]
        return EpisodeRow(index=values["episode_index"], values=values)

    def data_file(self, episode: EpisodeRow) -> Path:
        return self._file(self.info.data_path, episode, "data")

    def video_file(self, episode: EpisodeRow, camera: str) -> tuple[Path, float]:
        """(file, seconds at which the episode begins in it)."""
        if not self.info.video_path:
            raise FoundryError(f"{self.root / INFO} has no video_path for camera {camera!r}", "")
        prefix = f"videos/{camera}"
        file = self._file(self.info.video_path, episode, prefix, camera)
        if self.info.codebase_version == OLD:
            return file, 0.0
        return file, float(_value(episode, f"{prefix}/from_timestamp"))

    def _file(self, template: str, episode: EpisodeRow, prefix: str, camera: str = "") -> Path:
        version = self.info.codebase_version
        if version == OLD:
            chunk = episode.index // self.info.chunks_size
            fields = {"episode_chunk": chunk, "episode_index": episode.index}
        else:
            names = ("chunk_index", "file_index")
            fields = {name: _value(episode, f"{prefix}/{name}") for name in names}
        return source_file(self.root, filled(template, _FIELDS[version], fields, camera))


def _value(episode: EpisodeRow, column: str) -> Any:
    value = episode.values.get(column)
    if not isinstance(value, int | float):
        raise FoundryError(f"meta/episodes has no number {column!r} of {episode.name}", _AGAIN)
    return value


def filled(template: str, allowed: set[str], fields: Mapping[str, int], camera: str) -> str:
    """A path from a template of plain fields. FoundryError for any other: format strings can reach
    into objects, or ask for a billion zeros."""
    rule = f"it may use {', '.join(sorted(allowed))}, with a width"
    try:
        for _, name, spec, conversion in Formatter().parse(template):
            plain = name in allowed and not conversion and _SPEC.fullmatch(spec or "")
            if name is not None and not plain:
                raise FoundryError(f"{INFO}: path template {template!r} uses {{{name}}}", rule)
        return template.format(**fields, video_key=camera)
    except (ValueError, LookupError) as error:
        raise FoundryError(f"{INFO}: path template {template!r}: {error}", rule) from error


def read_info(root: Path) -> Info:
    """meta/info.json. FoundryError where there is none, or it is of another version."""
    path = root / INFO
    if not root.exists():
        raise FoundryError(f"source {str(root)!r} does not exist", "check the path")
    if not path.is_file():
        below = marked_below(root, INFO)
        raise FoundryError(
            f"{str(root)!r} holds no {INFO}",
            f"a LeRobot dataset lies in {str(below)!r}: name that"
            if below
            else "point it at the root of a LeRobot dataset",
        )
    version = read_as(_Version, path, _AGAIN).codebase_version
    if version not in _FIELDS:
        raise FoundryError(
            f"{path} is of LeRobot's version {version or 'unknown'}; {OLD} and {NEW} are read",
            "convert it with the scripts of LeRobot (lerobot.datasets.v30 and v21)",
        )
    info: Info = read_as(Info, path, _AGAIN)
    for name in COUNTERS:
        if name not in info.features:
            raise FoundryError(f"{path} lists no feature {name!r}", _AGAIN)
    return info


def read_meta(root: Path) -> Meta:
    """All of meta/ that reading needs, remembered per process: a table of all episodes would be
    read for each of them."""
    info = root / INFO
    if not info.is_file():
        read_info(root)
    return _read(root, signature(info.stat()))


@lru_cache(maxsize=4)
def _read(root: Path, _: Signature) -> Meta:
    info = read_info(root)
    if info.codebase_version == OLD:
        import pyarrow as pa

        columns = {"episode_index": int, "length": int, "tasks": list}
        listed = _json_lines(root / "meta/episodes.jsonl", columns)
        held = {name: [row[name] for row in listed] for name in columns}
        held["tasks"] = [[_bytes(one) for one in tasks] for tasks in held["tasks"]]
        rows = pa.table(held)
        stated = _json_lines(root / "meta/tasks.jsonl", {"task_index": int, "task": str})
        tasks = {row["task_index"]: row["task"] for row in stated}
    else:
        rows, tasks = _episode_tables(root, info), _tasks(root / "meta/tasks.parquet")
    return Meta(
        root=root, info=info, tasks=tasks, rows=rows, instructions=_said(root / INSTRUCTIONS)
    )


def _said(path: Path) -> dict[int, dict[str, list[str]]]:
    """All words of each episode, by kind: what LeRobot's own tables have no place for."""
    if not path.is_file():
        return {}
    found: dict[int, dict[str, list[str]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
            words = {str(kind): [str(text) for text in texts] for kind, texts in row[_SAID].items()}
            found[int(row["episode_index"])] = words
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise FoundryError(
                f"{path}: {line[:80]!r} is no line of it: {error!r}", _AGAIN
            ) from error
    return found


def _json_lines(path: Path, fields: Mapping[str, type]) -> list[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines if line.strip()]
        return [
            {n: kind(row.get(n, []) if kind is list else row[n]) for n, kind in fields.items()}
            for row in rows
        ]
    except (
        *(OSError, OverflowError, ValueError, LookupError, TypeError, AttributeError),
    ) as error:
        raise FoundryError(f"{path} is not LeRobot's {path.name}: {error!r}", _AGAIN) from error


def _episode_tables(root: Path, info: Info) -> "pa.Table":
    import pyarrow as pa

    parts = ["data/", *(f"videos/{key}/" for key, f in info.features.items() if f.is_camera)]
    wanted = {"episode_index", "length", "tasks"} | {
        part + name for part in parts for name in ("chunk_index", "file_index", "from_timestamp")
    }
    files = [n for n in source_files(root / "meta/episodes") if n.endswith(".parquet")]
    if not files:
        raise FoundryError(f"{root / 'meta/episodes'} holds no .parquet file", _AGAIN)
    tables = [parquet_table(root / "meta/episodes" / name, wanted) for name in files]
    try:
        tables = [_in_bytes(table, "tasks", pa.list_(pa.large_binary())) for table in tables]
        table = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise FoundryError(f"files in {root / 'meta/episodes'} differ: {error}", _AGAIN) from error
    for name in ("episode_index", "length"):
        whole = name in table.column_names and pa.types.is_integer(table[name].type)
        if not whole or table[name].null_count:
            raise FoundryError(f"{root / 'meta/episodes'}: not every row has {name!r}", _AGAIN)
    return table


def parquet_table(path: Path, columns: set[str] | None = None) -> "pa.Table":
    """A small file, reduced to those of the columns that it has."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    try:
        file = ParquetFile(path)
        names = file.schema_arrow.names
        return file.read([n for n in names if columns is None or n in columns])
    except (pa.ArrowException, OSError) as error:
        raise FoundryError(f"{path} is not a readable parquet file: {error}", _AGAIN) from error


def _tasks(path: Path) -> dict[int, str]:
    """Text by the column task_index. The text is the index of a data frame: the schema's `pandas`
    entry says which column that is."""
    import pyarrow as pa

    table = parquet_table(path)
    noted = table.schema.pandas_metadata or {}
    named = [name for name in noted.get("index_columns", []) if isinstance(name, str)]
    texts = [name for name in (*named, "task") if name in table.column_names]
    if not texts or "task_index" not in table.column_names:
        raise FoundryError(f"{path} has no column of tasks: {table.column_names}", _AGAIN)
    told = _in_bytes(table, texts[0], pa.large_binary())[texts[0]].to_pylist()
    pairs = zip(table["task_index"].to_pylist(), told, strict=True)
    return {index: str(_text(text)) for index, text in pairs}


def _in_bytes(table: "pa.Table", name: str, kind: "pa.DataType") -> "pa.Table":
    """With a column of texts as bytes: Arrow fails on all of a column where one is no UTF-8."""
    import pyarrow as pa

    if name not in table.column_names:
        return table
    held = table[name].type
    inner = held.value_type if pa.types.is_list(held) or pa.types.is_large_list(held) else held
    if not (pa.types.is_string(inner) or pa.types.is_large_string(inner)):
        return table
    return table.set_column(table.column_names.index(name), name, table[name].cast(kind))


def _text(held: Any) -> Any:
    """Of bytes; half characters where they are no UTF-8, for which episodes are refused."""
    return held.decode(errors="surrogateescape") if isinstance(held, bytes) else held


def _bytes(text: Any) -> bytes:
    return str(text).encode(errors="surrogatepass")
