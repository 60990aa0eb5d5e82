"""Robot shards (whole episodes) → a LeRobot v3.0 dataset.

Every stored array becomes a feature of its own name in float64, so that no number is lost; matrices
lie flat. Of them, `observation.state` (what is measured) and `action` (what is commanded) are made
in float32, which is what LeRobot's policies look for. Pictures become videos, or files in the
tables: the stored JPEG files as they are, or PNG, both exact. LeRobot's rows have one task each;
all words of an episode, by kind, are in meta/instructions.jsonl, which LeRobot passes over and our
reader reads. meta/info.json is written last: without it, a folder is no dataset.
"""

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow.parquet import write_table

from foundry_core.data.contract.statements import DataContract
from foundry_core.data.export.demonstrations import StoredDemonstration, stored_demonstration
from foundry_core.data.export.lerobot_files import (
    CHUNK_FILES,
    DATA_MB,
    DATA_PATH,
    EPISODES_PATH,
    VIDEO_MB,
    VIDEO_PATH,
    Tables,
    Videos,
)
from foundry_core.data.export.lerobot_stats import FeatureStats
from foundry_core.data.loading.shards import CheckedShards
from foundry_core.data.shards.description import RobotDescription, read_robot
from foundry_core.data.sources.robot.lerobot import MEANINGS
from foundry_core.data.sources.robot.lerobot_meta import INSTRUCTIONS
from foundry_core.data.video import encoder
from foundry_core.errors import FoundryError
from foundry_core.files import write_json, write_json_lines

Pictures = Literal["video", "png", "jpeg"]
STATE, ACTION, SUCCESS = "observation.state", "action", "next.success"
_COUNTERS = ("frame_index", "episode_index", "index", "task_index")
_MADE = ("timestamp", *_COUNTERS)
# The part of a canonical name that says who is speaking → the feature it is joined into.
_JOINED = {"actual": STATE, "action": ACTION}
_CODECS = {"libsvtav1": "av1"}
_ROWS = 100


@dataclass(kw_only=True)
class _Totals:
    """What has been written so far."""

    episodes: int = 0
    frames: int = 0
    tasks: dict[str, int] = field(default_factory=dict)
    stats: dict[str, FeatureStats] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    instructions: list[dict[str, Any]] = field(default_factory=list)


def export_lerobot(shards: str, out: Path, *, images: Pictures = "video") -> dict[str, int]:
    """Writes the dataset into `out`, a new folder; returns counts. FoundryError for shards of
    windows, and where episodes differ in their fields."""
    if out.exists() and any(out.iterdir()):
        raise FoundryError(f"{str(out)!r} is not empty", "name a new folder for the dataset")
    source = CheckedShards(shards)
    description = read_robot(source.folder)
    if description.layout != "episode":
        raise FoundryError(
            f"{shards!r} holds windows (layout {description.layout!r}), not episodes",
            "convert the source with layout=episode",
        )
    known = all(_success(source, number) is not None for number in range(len(source)))
    export = _Export(out, description, images, successes=known)
    for number in range(len(source)):
        export.add(stored_demonstration(source, number, description))
    return export.finish()


class _Export:
    """A dataset in the making."""

    def __init__(
        self, out: Path, description: RobotDescription, images: Pictures, *, successes: bool
    ) -> None:
        self._out, self._hz, self._images = out, description.hz, images
        self._successes = successes
        self._meanings = description.stated.fields
        self._rate = Fraction(description.hz).limit_denominator(100_000)
        self._codec = encoder() if images == "video" else ""
        self._cameras = {
            name: name if name.startswith("observation.") else f"observation.images.{name}"
            for name in description.cameras
        }
        self._data = Tables(out, DATA_PATH)
        self._rows = Tables(out, EPISODES_PATH)
        self._videos = {
            name: Videos(out, key, self._rate, self._codec) for name, key in self._cameras.items()
        }
        self._features: dict[str, dict[str, Any]] = {}
        self._totals = _Totals()

    def add(self, sample: StoredDemonstration) -> None:
        """Writes one episode."""
        columns = self._columns(sample)
        features = self._described(sample, columns)
        self._features = self._features or features
        if features != self._features:
            raise FoundryError(
                f"{sample.name} has other fields or sizes than the episodes before it: "
                f"{sorted(_differing(features, self._features))}",
                "convert the dataset with one list of fields and one image.size",
            )
        totals = self._totals
        place = self._data.place()
        row: dict[str, Any] = {
            "episode_index": totals.episodes,
            "tasks": [sample.task],
            "length": sample.length,
            "data/chunk_index": place.chunk,
            "data/file_index": place.file,
            "dataset_from_index": totals.frames,
            "dataset_to_index": totals.frames + sample.length,
        }
        stats = {name: FeatureStats.of(values) for name, values in columns.items()}
        arrays = {name: _arrow(values) for name, values in columns.items()}
        for camera, key in self._cameras.items():
            pictures = sample.images[camera]
            stats[key] = FeatureStats.of_pictures(pictures)
            if self._images == "png":
                arrays[key] = _file_column(map(_png, pictures), "png")
            elif self._images == "jpeg":
                arrays[key] = _file_column(map(bytes, sample.files[camera]), "jpg")
            else:
                held = self._videos[camera].write(pictures)
                row |= {f"videos/{key}/{name}": value for name, value in held.items()}
        self._data.write(pa.table(arrays))
        for name, one in stats.items():
            row |= {f"stats/{name}/{kind}": value for kind, value in one.lists().items()}
            before = totals.stats.get(name)
            totals.stats[name] = before.plus(one) if before else one
        said = {"episode_index": totals.episodes, "instructions": dict(sample.instructions)}
        totals.instructions.append(said)
        totals.episodes += 1
        totals.frames += sample.length
        totals.rows.append(row)
        if len(totals.rows) == _ROWS:
            self._flush()

    def finish(self) -> dict[str, int]:
        """Closes the files and writes what describes them."""
        self._flush()
        self._data.close()
        self._rows.close()
        for video in self._videos.values():
            video.close()
        totals = self._totals
        _write_tasks(self._out / "meta/tasks.parquet", list(totals.tasks))
        write_json_lines(self._out / INSTRUCTIONS, totals.instructions)
        stats = {name: one.lists() for name, one in totals.stats.items()}
        write_json(self._out / "meta/stats.json", stats)
        meant = DataContract(fields=self._meanings)
        write_json(self._out / MEANINGS, meant.model_dump(mode="json"))
        write_json(self._out / "meta/info.json", self._info())
        return {
            "episodes": totals.episodes,
            "frames": totals.frames,
            "tasks": len(totals.tasks),
            "features": len(self._features),
        }

    def _columns(self, sample: StoredDemonstration) -> dict[str, np.ndarray]:
        """{feature: [L, D]} of all that is not a picture."""
        totals = self._totals
        task = totals.tasks.setdefault(sample.task, len(totals.tasks))
        steps = np.arange(sample.length)
        made: dict[str, np.ndarray] = {
            "timestamp": (steps / self._hz).astype(np.float32),
            "frame_index": steps,
            "episode_index": np.full(sample.length, totals.episodes),
            "index": totals.frames + steps,
            "task_index": np.full(sample.length, task),
        }
        own = {name: v for name, v in sample.lowdim.items() if name not in made}
        joined = {
            target: np.concatenate([own[name] for name in names], axis=1).astype(np.float32)
            for target, names in _parts(own).items()
        }
        if self._successes:
            joined[SUCCESS] = ((steps == sample.length - 1) & bool(sample.success))[:, None]
        return joined | own | {name: values[:, None] for name, values in made.items()}

    def _described(
        self, sample: StoredDemonstration, columns: Mapping[str, np.ndarray]
    ) -> dict[str, dict[str, Any]]:
        """The entries of `features`. Of a joined one, `names` says what each dimension is."""
        parts = _parts(sample.lowdim)
        found: dict[str, dict[str, Any]] = {}
        for name, values in columns.items():
            names: list[str] | None = None
            if name in parts:
                names = [f"{p}.{i}" for p in parts[name] for i in range(columns[p].shape[1])]
            found[name] = {"dtype": str(values.dtype), "shape": [values.shape[1]], "names": names}
        for camera, key in self._cameras.items():
            found[key] = self._camera(sample.images[camera])
        for name in found:
            if "/" in name:
                raise FoundryError(f"{name!r} is no name for LeRobot", "convert without slashes")
        return found

    def _camera(self, pictures: Sequence[np.ndarray]) -> dict[str, Any]:
        height, width = pictures[0].shape[:2]
        entry: dict[str, Any] = {
            "dtype": "video" if self._images == "video" else "image",
            "shape": [height, width, 3],
            "names": ["height", "width", "channels"],
        }
        if self._images == "video":
            entry["info"] = {
                "video.height": height,
                "video.width": width,
                "video.codec": _CODECS.get(self._codec, "h264"),
                "video.pix_fmt": "yuv420p",
                "video.is_depth_map": False,
                "video.fps": _plain(self._hz),
                "video.channels": 3,
                "has_audio": False,
            }
        return entry

    def _flush(self) -> None:
        place = self._rows.place()
        where = {"meta/episodes/chunk_index": place.chunk, "meta/episodes/file_index": place.file}
        if self._totals.rows:
            self._rows.write(pa.Table.from_pylist([row | where for row in self._totals.rows]))
        self._totals.rows = []

    def _info(self) -> dict[str, Any]:
        totals = self._totals
        return {
            "codebase_version": "v3.0",
            "robot_type": None,
            "total_episodes": totals.episodes,
            "total_frames": totals.frames,
            "total_tasks": len(totals.tasks),
            "chunks_size": CHUNK_FILES,
            "data_files_size_in_mb": DATA_MB,
            "video_files_size_in_mb": VIDEO_MB,
            "fps": _plain(self._hz),
            "splits": {"train": f"0:{totals.episodes}"},
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if self._images == "video" else None,
            "features": self._features,
        }


def _success(source: CheckedShards, number: int) -> bool | None:
    success: bool | None = json.loads(bytes(source.peek(number, "metadata.json"))).get("success")
    return success


def _parts(fields: Mapping[str, np.ndarray]) -> dict[str, list[str]]:
    """{observation.state, action: the fields they are joined of}; what data that came from LeRobot
    have already is not made again."""
    found: dict[str, list[str]] = {}
    for name in fields:
        speaker = name.split("__")[1:2]
        target = _JOINED.get(speaker[0]) if speaker else None
        if target and target not in fields:
            found.setdefault(target, []).append(name)
    return found


def _differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[str]:
    return (name for name in {*a, *b} if a.get(name) != b.get(name))


def _arrow(values: np.ndarray) -> pa.Array:
    """[L, D] as a column: numbers where D is 1, else lists of D."""
    if values.shape[1] == 1:
        return pa.array(values[:, 0])
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def _png(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _file_column(files: Iterable[bytes], ending: str) -> pa.Array:
    """One file per step, as `datasets` keeps images."""
    rows = [
        {"bytes": data, "path": f"frame_{step:06d}.{ending}"} for step, data in enumerate(files)
    ]
    return pa.array(rows, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))


def _write_tasks(path: Path, texts: list[str]) -> None:
    """The text is the index of a data frame, as pandas notes it in the schema."""
    columns = [
        {
            "name": name,
            "field_name": name,
            "pandas_type": kind,
            "numpy_type": numpy,
            "metadata": None,
        }
        for name, kind, numpy in (("task_index", "int64", "int64"), ("task", "unicode", "object"))
    ]
    noted = {"index_columns": ["task"], "column_indexes": [], "columns": columns}
    table = pa.table({"task_index": pa.array(range(len(texts)), pa.int64()), "task": texts})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(table.replace_schema_metadata({"pandas": json.dumps(noted)}), path)


def _plain(hz: float) -> int | float:
    return int(hz) if float(hz).is_integer() else hz
