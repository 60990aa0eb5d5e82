"""LeRobot datasets, v2.1 and v3.0: tables in parquet, cameras as videos or as images in the tables.

Names stay as the dataset has them: every numeric feature is a field, LeRobot's own counters too.
Pictures of a video are found by time, within `tolerance_s`, never by number: a video may begin
anywhere in its file and need not have a constant rate.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from foundry_core.config.validation import read_as
from foundry_core.data.contract.fields import FieldContract
from foundry_core.data.contract.statements import CameraContract, DataContract
from foundry_core.data.sources.base import Held, PathSource, Reads, RobotFormat, SourceRef
from foundry_core.data.sources.robot.lerobot_meta import (
    INFO,
    EpisodeRow,
    Meta,
    read_info,
    read_meta,
)
from foundry_core.errors import FoundryError

if TYPE_CHECKING:
    import numpy as np

    from foundry_core.data.robot.episodes import Episode, Frames
    from foundry_core.data.sources.robot.lerobot_tables import EpisodeRows

MEANINGS = "meta/foundry.json"


class Lerobot(RobotFormat, PathSource):
    """The folder of a LeRobot dataset (v2.1, v3.0): the one that holds meta/info.json."""

    format: Literal["lerobot"] = "lerobot"
    tolerance_s: float = Field(1e-4, gt=0, description="between a row's time and its video frame's")

    mark: ClassVar[str] = INFO
    bookkeeping: ClassVar[Mapping[str, str]] = {
        "timestamp": "seconds since the episode's start",
        "frame_index": "counts the episode's steps",
        "episode_index": "counts episodes",
        "index": "counts all rows",
        "task_index": "stands for the task, whose words are the instruction",
        "next.done": "marks the episode's last step",
        "next.success": "whether the episode succeeded: see keep_failures",
        "next.reward": "a reward",
    }

    @classmethod
    def matches(cls, path: Path) -> bool:
        return (path / INFO).is_file()

    @classmethod
    def lacks(cls, path: Path) -> str:
        chunks = next((path / "data").glob("chunk-*/*.parquet"), None)
        return "" if chunks is None or cls.matches(path) else INFO

    def contract(self) -> DataContract:
        if self.remote is not None:
            return DataContract()
        info = read_info(self.root)
        cameras = {
            name: CameraContract(drawn=feature.size)
            for name, feature in info.features.items()
            if feature.is_camera and not feature.is_depth
        }
        fields = {n: one for n, one in self._meant().items() if n in info.features}
        return DataContract(hz=info.fps, cameras=cameras, fields=fields)

    def holds(self) -> Held | None:
        if self.remote is not None:
            return None
        features = read_info(self.root).features.items()
        numbers = {name: one for name, one in features if one.is_numeric}
        return Held(
            dims={name: one.width for name, one in numbers.items()},
            names={name: one.dimensions for name, one in numbers.items() if one.dimensions},
            cameras=tuple(name for name, one in features if one.is_camera and not one.is_depth),
            depth=tuple(name for name, one in features if one.is_camera and one.is_depth),
        )

    def _meant(self) -> Mapping[str, FieldContract]:
        """What our own export noted of its fields; LeRobot has no place for it."""
        path = self.root / MEANINGS
        if not path.is_file():
            return {}
        stated: DataContract = read_as(DataContract, path, "export it again, or remove the file")
        return stated.fields

    def episodes(self) -> list[SourceRef]:
        """In the order of the episodes' table."""
        meta = read_meta(self.root)
        if not meta.rows.num_rows:
            raise FoundryError(f"{str(self.root)!r} lists no episode", "record one")
        return [
            SourceRef(
                name=EpisodeRow(index=index, values={}).name,
                files=(str(self.root),),
                start=number,
                stop=number + 1,
            )
            for number, index in enumerate(meta.rows["episode_index"].to_pylist())
        ]

    def reads(self, ref: SourceRef) -> Reads:
        """Its rows and films, and what meta/ says of it. Tasks are few, and count whole."""
        meta = read_meta(self.root)
        row = meta.episode(ref.start)
        features = meta.info.features.items()
        films = [name for name, feature in features if feature.dtype == "video"]
        files = [meta.data_file(row), *(meta.video_file(row, name)[0] for name in films)]
        values = {name: str(value) for name, value in row.values.items()}
        tasks = {str(index): task for index, task in meta.tasks.items()}
        facts = {"info": meta.info.model_dump(mode="json"), "row": values, "tasks": tasks}
        said = {kind: list(texts) for kind, texts in meta.instructions.get(row.index, {}).items()}
        return Reads(tuple(map(str, files)), facts | {"said": said})

    def read_episode(self, ref: SourceRef) -> "Episode":
        from foundry_core.data.robot.episodes import Episode, UnusableEpisode
        from foundry_core.data.sources.robot.lerobot_tables import episode_rows

        meta = read_meta(self.root)
        row = meta.episode(ref.start)
        try:
            rows = episode_rows(meta.data_file(row), row.index)
        except FoundryError as error:
            raise UnusableEpisode(f"{row.name}: {error.message}", error.hint) from error
        lowdim, instructions = _columns(meta, row, rows)
        images, depth = self._cameras(meta, row, rows, lowdim["timestamp"][:, 0])
        success = lowdim.get("next.success")
        return Episode(
            id=row.name,
            task=next(iter(instructions["original"]), ""),
            hz=meta.info.fps,
            success=None if success is None else bool(success.any()),
            instructions=instructions,
            lowdim=lowdim,
            images=images,
            depth=depth,
        )

    def _cameras(
        self, meta: Meta, row: EpisodeRow, rows: "EpisodeRows", times: "np.ndarray"
    ) -> "tuple[dict[str, Frames], dict[str, Frames[np.ndarray]]]":
        from foundry_core.data.sources.robot import lerobot_cameras as cameras

        images: dict[str, Frames] = {}
        depth: dict[str, Frames[np.ndarray]] = {}
        for name, feature in meta.info.features.items():
            if not feature.is_camera:
                continue
            code = cameras.DepthCode.of(feature, name) if feature.is_depth else None
            if feature.dtype == "video":
                locate = partial(meta.video_file, row, name)
                frames = cameras.filmed(locate, name, times, self.tolerance_s, code)
                (depth if code else images)[name] = frames
            elif code:
                depth[name] = cameras.stored_depth(rows, name, code)
            else:
                images[name] = cameras.stored_pictures(rows, name)
        return images, depth


def _columns(
    meta: Meta, row: EpisodeRow, rows: "EpisodeRows"
) -> "tuple[dict[str, np.ndarray], dict[str, list[str]]]":
    """(fields, instructions by kind): tasks in the order of the episode as "original", then those
    that only meta/episodes has; columns of
    strings by their names, `language_persistent` by style. Questions and remarks at single steps
    (`language_events`) instruct nobody and are left out. Raises UnusableEpisode."""
    import numpy as np

    from foundry_core.data.robot.episodes import UnusableEpisode
    from foundry_core.data.sources.robot import lerobot_tables as tables

    if rows.length != row.values["length"]:
        raise UnusableEpisode(
            f"{rows.path} holds {rows.length} rows of {row.name}, meta says {row.values['length']}",
            "fetch the file again, or remove the episode",
        )
    features = {
        name: feature
        for name, feature in meta.info.features.items()
        if not feature.is_camera and name != "language_events"
    }
    table = rows.read(list(features))
    lowdim: dict[str, np.ndarray] = {}
    instructions: dict[str, list[str]] = {"original": []}
    for name, feature in features.items():
        column = table[name]
        if feature.dtype == "language":
            instructions |= tables.spoken(column)
        elif feature.dtype == "string":
            instructions[name] = tables.words(column)
        elif tables.is_numeric(column):
            lowdim[name] = tables.numbers(rows, name, column, feature)
        else:
            raise UnusableEpisode(
                f"{rows.path}: {name!r} holds {column.type}, not numbers", "remove the feature"
            )
    unordered = lowdim["frame_index"][:, 0] != np.arange(rows.length)
    if unordered.any():
        step = int(np.argmax(unordered))
        raise UnusableEpisode(
            f"{rows.path}: 'frame_index' of {row.name} is {lowdim['frame_index'][step, 0]:g} at "
            f"step {step}",
            "steps count from 0, one after the other",
        )
    late = np.diff(lowdim["timestamp"][:, 0]) <= 0
    if late.any():
        step = int(np.argmax(late)) + 1
        raise UnusableEpisode(
            f"{rows.path}: 'timestamp' of {row.name} does not go on at step {step}",
            "times grow from step to step",
        )
    for step, index in enumerate(lowdim["task_index"][:, 0].astype(int).tolist()):
        if index not in meta.tasks:
            raise UnusableEpisode(
                f"{rows.path}: 'task_index' is {index} at step {step}, which meta/tasks does not "
                "list",
                "mend the list of tasks",
            )
        if meta.tasks[index] not in instructions["original"]:
            instructions["original"].append(meta.tasks[index])
    return lowdim, _with_variants(meta, row, instructions)


def _with_variants(
    meta: Meta, row: EpisodeRow, instructions: "dict[str, list[str]]"
) -> "dict[str, list[str]]":
    """Other words for the same, which no row names: of meta/episodes, and of our own exports. Where
    they lack the words of the rows, the tasks were changed since, and they are of others."""
    told = instructions["original"]
    listed = [one for one in row.values.get("tasks") or () if isinstance(one, str) and one.strip()]
    if set(told) <= set(listed):
        instructions["original"] = list(dict.fromkeys((*told, *listed)))
    said = meta.instructions.get(row.index, {})
    known = {text for texts in said.values() for text in texts}
    return {**instructions, **said} if set(told) <= known else instructions


FORMAT = Lerobot
