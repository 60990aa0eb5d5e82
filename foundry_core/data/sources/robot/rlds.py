"""RLDS: a TFDS folder of episodes (Open X-Embodiment, DROID, Bridge), read without TensorFlow.

features.json says what is there; a record of a shard is one episode. Pictures are 8-bit RGB, or
16-bit PNG files, which are depth. Not read: ragged lists, pictures of other kinds.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from foundry_core.config.suggest import nearest
from foundry_core.data.sources.base import Reads, SourceRef
from foundry_core.data.sources.robot.recorded import Recorded, episode_id
from foundry_core.errors import FoundryError
from foundry_core.files import read_json
from foundry_core.identity.sources import source_files

if TYPE_CHECKING:
    import numpy as np

    from foundry_core.data.robot.episodes import Episode, Frames
    from foundry_core.data.sources.robot.tfds.example import Values
    from foundry_core.data.sources.robot.tfds.features import Feature

_HINT = "fetch the shard again"
_ABSENT = -1
_MAX_SHARDS = 100_000
_SHARD = re.compile(r"(?P<set>.+)-(?P<split>[^-]+)\.tfrecord-(?P<number>\d+)-of-(?P<count>\d+)")


class Rlds(Recorded):
    """A TFDS folder of RLDS episodes, or one above it. A ref is one record of a shard."""

    format: Literal["rlds"] = "rlds"
    bookkeeping: ClassVar[Mapping[str, str]] = {
        "is_first": "marks the episode's first step",
        "is_last": "marks the episode's last step",
        "is_terminal": "marks the episode's last step",
        "discount": "a factor on rewards",
        "reward": "a reward",
    }
    hz: float = Field(gt=0, description="control rate: RLDS holds none (DROID 15, Bridge 5)")
    split: str = Field("", description="only this one; all of them where empty")

    @classmethod
    def matches(cls, path: Path) -> bool:
        from foundry_core.data.sources.files import look

        return any(file.name == "features.json" for file in look(path, levels=3))

    def episodes(self) -> list[SourceRef]:
        """Shard by shard, by name, as the records lie in them. What the folder promises and does
        not hold is a ref too, which cannot be read."""
        from foundry_core.data.sources.robot.tfds.records import record_starts

        folder = self._folder()
        promised = _promised(folder)
        refs: list[SourceRef] = []
        for name in self._shards(folder):
            path = folder / name
            starts = record_starts(path)[0] if path.is_file() else [_ABSENT]
            starts += [_ABSENT] * (promised.get(name, 0) - len(starts))
            refs += [
                SourceRef(name=f"{name}[{number}]", files=(str(path),), start=start)
                for number, start in enumerate(starts)
            ]
        if not refs:
            raise FoundryError(f"{str(folder)!r} holds no records", "fetch it again")
        return refs

    def reads(self, ref: SourceRef) -> Reads:
        return Reads((*ref.files, str(ref.path.parent / "features.json")))

    def read_episode(self, ref: SourceRef) -> "Episode":
        """Fields by their paths below `steps` (`action`, `observation/state`), cameras too."""
        from foundry_core.data.robot.episodes import Episode, UnusableEpisode
        from foundry_core.data.sources.robot.steps import check_steps, readable
        from foundry_core.data.sources.robot.tfds.example import parse_example
        from foundry_core.data.sources.robot.tfds.features import read_features
        from foundry_core.data.sources.robot.tfds.records import read_record, record_starts

        where = f"{ref.path.parent / ref.name}"
        if ref.start == _ABSENT:
            reason = record_starts(ref.path)[1] if ref.path.is_file() else "there is no such shard"
            raise UnusableEpisode(
                f"{where} is absent: {reason or 'the shard ends before it'}", _HINT
            )
        path = ref.path.parent / "features.json"
        steps, others = read_features(_document(path), str(path))
        record = read_record(ref.path, ref.start)
        with readable(where):
            example = parse_example(record)
        lowdim, images, depth, texts = _steps(steps, example, where, self.depth_unit)
        check_steps(where, lowdim, images)
        metadata = dict(_metadata(others, example, where))
        words = self.words([*_instructions(texts), *_instructions(metadata)])
        return Episode(
            id=episode_id(ref.name.replace(".tfrecord", "")),
            task=next(iter(words["original"]), self._set(ref)),
            hz=self.hz,
            success=_success(metadata),
            instructions=words,
            lowdim=lowdim,
            images=images,
            depth=depth,
        )

    def _folder(self) -> Path:
        names = source_files(self.root) if self.root.is_dir() else []
        found = [name for name in names if name.split("/")[-1] == "features.json"]
        if len(found) != 1:
            raise FoundryError(
                f"{str(self.root)!r} holds {len(found)} features.json",
                "point it at one version of one set: <name>/<version>",
            )
        return (self.root / found[0]).parent

    def _shards(self, folder: Path) -> list[str]:
        """Names of all shards of the wanted splits, absent ones too, in order."""
        held = [match for name in source_files(folder) if (match := _SHARD.fullmatch(name))]
        splits = sorted({match["split"] for match in held})
        if not held or (self.split and self.split not in splits):
            what = f"no split {self.split!r}" if held else "no .tfrecord shards"
            raise FoundryError(
                f"{str(folder)!r} holds {what}",
                nearest(self.split, splits) if held else "other file formats of TFDS are not read",
            )
        wanted = [match for match in held if self.split in ("", match["split"])]
        names = {
            f"{m['set']}-{m['split']}.tfrecord-{number:0{len(m['number'])}d}-of-{m['count']}"
            for m in wanted
            for number in range(min(int(m["count"]), _MAX_SHARDS))
        }
        return sorted(names | {match.string for match in wanted})

    @staticmethod
    def _set(ref: SourceRef) -> str:
        match = _SHARD.match(ref.name)
        return match["set"] if match else ref.name


def _document(path: Path) -> Any:
    try:
        return read_json(path)
    except ValueError as error:
        raise FoundryError(f"{path} is no JSON: {error}", "fetch it again") from None


def _promised(folder: Path) -> dict[str, int]:
    """{shard: records} by dataset_info.json; {} where there is none."""
    path = folder / "dataset_info.json"
    if not path.is_file():
        return {}
    try:
        info = _document(path)
        name = info["name"]
        return {
            f"{name}-{split['name']}.tfrecord-{number:05d}-of-{len(lengths):05d}": int(length)
            for split in info.get("splits", ())
            for lengths in [split.get("shardLengths", ())]
            for number, length in enumerate(lengths)
        }
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise FoundryError(f"{path} is not what TFDS writes: {error!r}", "fetch it again") from None


def _steps(
    features: "Mapping[str, Feature]",
    example: "Mapping[str, Values]",
    where: str,
    depth_unit: str | None,
) -> "tuple[dict[str, np.ndarray], dict[str, Frames], dict[str, Frames], dict[str, list[str]]]":
    """(fields, cameras, depth, texts) by path."""
    from foundry_core.data.sources.robot.steps import lowdim, readable

    fields: dict[str, np.ndarray] = {}
    images: dict[str, Frames] = {}
    depth: dict[str, Frames] = {}
    texts: dict[str, list[str]] = {}
    for path, feature in features.items():
        values = example.get(f"steps/{path}", [])
        with readable(f"{where}: {path}"):
            if feature.kind == "number":
                fields[path] = lowdim(feature.numbers(values))
            elif feature.kind == "text":
                texts[path] = [str(text, "utf-8") for text in values]
            elif feature.kind == "picture":
                images[path] = _frames(values)
            elif feature.kind == "depth":
                depth[path] = _depth(values, f"{where}: {path}", depth_unit)
    return fields, images, depth, texts


def _depth(values: "Values", where: str, unit: str | None) -> "Frames":
    from foundry_core.data.images import decode_depth
    from foundry_core.data.robot.episodes import Frames
    from foundry_core.data.sources.robot.steps import metres

    files = _frames(values)
    return Frames(
        len(files), lambda step: metres(decode_depth(files[step], f"{where} at step {step}"), unit)
    )


def _frames(values: "Values") -> "Frames":
    from foundry_core.data.robot.episodes import Frames

    if not isinstance(values, list):
        raise TypeError("numbers where image files are declared")
    return Frames(len(values), lambda step: bytes(values[step]))


def _metadata(
    features: "Mapping[str, Feature]", example: "Mapping[str, Values]", where: str
) -> Iterator[tuple[str, list[Any]]]:
    from foundry_core.data.sources.robot.steps import readable

    for path, feature in features.items():
        values = example.get(path, [])
        with readable(f"{where}: {path}"):
            if feature.kind == "text":
                yield path, [str(text, "utf-8") for text in values]
            elif feature.kind == "number":
                yield path, feature.numbers(values).reshape(-1).tolist()


def _instructions(texts: Mapping[str, list[Any]]) -> Iterator[str]:
    """The first that is not empty of each text that is called an instruction: those of a step,
    then those of its observation."""
    named = [path for path in texts if "instruction" in path.rpartition("/")[2]]
    for path in sorted(named, key=lambda path: (path.count("/"), path)):
        yield next((text for text in texts[path] if isinstance(text, str) and text.strip()), "")


def _success(metadata: Mapping[str, list[Any]]) -> bool | None:
    """Where a set says so: a field `success`, or DROID's folders."""
    for path, values in metadata.items():
        name = path.rpartition("/")[2]
        if name == "success" and values:
            return bool(values[0])
        if name == "file_path" and values:
            folders = str(values[0]).split("/")
            if "success" in folders or "failure" in folders:
                return "failure" not in folders
    return None


FORMAT = Rlds
