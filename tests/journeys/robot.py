"""A robot data set on its way: read, mapped, converted, one training step, exported, read back."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy.spatial.transform import Rotation

from foundry_core.config.validation import validate
from foundry_core.data.export.lerobot import export_lerobot
from foundry_core.data.inspection.raw import detect, raw_contents
from foundry_core.data.mapping.apply import mapped
from foundry_core.data.mapping.config import AnyMapping, RobotMapping
from foundry_core.data.npy import read_npz
from foundry_core.data.robot.episodes import Episode, UnusableEpisode
from foundry_core.data.shards.description import RobotDescription, read_robot
from foundry_core.data.shards.read import ShardSet
from foundry_core.data.sources.base import RobotFormat
from foundry_core.data.sources.robot.lerobot import Lerobot
from foundry_core.data.text.tokenizer import Tokenizer
from tasks.convert_robot import ConvertRobot
from tasks.merge_stats import MergeStats
from tasks.train_vla import TrainVla
from tests.journeys.originals import (
    Found,
    Original,
    Way,
    compare,
    of_fixture,
    of_simulator,
    of_spartan,
    pixels,
    topics_equal,
)
from tests.lerobot_sets import read_digits
from tests.real_data import FORMATS, REAL_DATA
from tests.tasks.training_stages import HEAD, LANGUAGE, VLM, curve, run_stage

# A picture that was JPEG already keeps its bytes. Of others the conversion makes JPEG files of
# quality 95, which may lie so many grey levels off on average, of pictures with sharp squares.
JPEG_LEVELS = 2.0
_OWN_COLUMNS = ("timestamp", "frame_index", "episode_index", "index", "task_index", "next.success")
_HEAD = {**HEAD, "kind": "regression"}
_HEAD.pop("steps")


@dataclass(frozen=True, kw_only=True)
class Journey:
    """A data set. place: below the folder of real data. options: of its source. mapping: a ready
    one; None takes the draft of `data inspect`; "" none, for data that are canonical already."""

    place: str
    options: Mapping[str, Any] = field(default_factory=dict)
    mapping: str | None = None
    way: Way = field(default_factory=Way)
    originals: Callable[[Path], Iterator[Original]] | None = of_fixture
    folder: Path | None = None

    @property
    def path(self) -> Path:
        return self.folder or REAL_DATA / self.place

    @property
    def fixture(self) -> Path:
        """The folder with what the original reader gave."""
        return FORMATS / Path(self.place).parts[1]

    def source(self, **options: Any) -> RobotFormat:
        kind = detect(self.path)
        document = {**kind.options(str(self.path)), **self.options, **options}
        made: RobotFormat = validate(kind, document, "source")
        return made


WORDS = {"instruction": "lift it"}
JOURNEYS: dict[str, Journey] = {
    "hdf5_aloha_mobile": Journey(
        place="formats/hdf5_aloha_mobile",
        options={"hz": 50, **WORDS},
        mapping="aloha_mobile",
        way=Way(levels=1, swapped=True),
    ),
    "hdf5_aloha_sim": Journey(
        place="formats/hdf5_aloha_sim", options={"hz": 50, **WORDS}, mapping="aloha"
    ),
    "hdf5_libero": Journey(
        place="formats/hdf5_libero", mapping="libero", way=Way(upside_down=True)
    ),
    "hdf5_robomimic": Journey(place="formats/hdf5_robomimic", options=WORDS, mapping="robomimic"),
    **{
        name: Journey(place=f"formats/{name}/data_root", way=Way(levels=levels))
        for name, levels in {
            "lerobot_v21_png": 0,
            "lerobot_v21_video": 4,
            "lerobot_v30_depth_language": 4,
            "lerobot_v30_h264": 4,
            "lerobot_v30_png": 0,
            "lerobot_v30_video": 4,
        }.items()
    },
    **{
        name: Journey(
            place=f"formats/{name}/{file}",
            options={"stale": 0.25},
            way=Way(levels=1),
            originals=None,
        )
        for name, file in {
            "mcap_foxglove_json": "demo.mcap",
            "mcap_foxglove_protobuf": "demo.mcap",
            "mcap_ros2": "demo.mcap",
            "rosbag1": "demo.bag",
            "rosbag2_sqlite": "demo",
        }.items()
    },
    "rlds_bridge": Journey(
        place="formats/rlds_bridge/tfds",
        options={"hz": 5, **WORDS},  # one of its episodes holds none
        mapping="bridge",
        way=Way(levels=2),
    ),
    "rlds_droid": Journey(
        place="formats/rlds_droid/tfds", options={"hz": 15}, mapping="droid", way=Way(levels=2)
    ),
    "rlds_oxe": Journey(place="formats/rlds_oxe/tfds", options={"hz": 5}, way=Way(levels=2)),
    "zarr_pusht": Journey(
        place="formats/zarr_pusht/pusht_cchi_fixture.zarr", options={"hz": 10}, mapping="pusht"
    ),
    "zarr_umi_zip": Journey(
        place="formats/zarr_umi_zip/dataset.zarr.zip",
        options={"hz": 60, **WORDS},
        mapping="umi",
    ),
    "spartan": Journey(place="lbm_raw", mapping="", originals=of_spartan),
}


def simulator(folder: Path) -> Journey:
    """Of demonstrations that `collect_demos` recorded into `folder`."""
    return Journey(place="", folder=folder, mapping="", originals=of_simulator)


@dataclass
class Travel:
    """One data set's journey below `out`: a method per stretch, in order; each returns what it
    compared and raises AssertionError where something is not what it was."""

    journey: Journey
    out: Path

    def __post_init__(self) -> None:
        self.source = self.journey.source()
        self.episodes: list[Episode] = []
        self.unusable = 0

    def read(self) -> str:
        if self.journey.originals is None:
            found = topics_equal(self.journey.fixture, self._only_episode, self.journey.way)
            self._collect()
            return found.text()
        self._collect()
        wanted = list(self.journey.originals(self._originals_at()))
        usable = [one for one in wanted if not one.error]
        assert (len(self.episodes), self.unusable) == (len(usable), len(wanted) - len(usable))
        found = Found()
        for episode, original in zip(self.episodes, usable, strict=True):
            compare(found, episode, original, self.journey.way)
        return found.text()

    def map(self) -> str:
        """Fields against a computation of their own, by SciPy; what is not turned, to the bit."""
        self.mapping = self._mapping()
        found = Found()
        if self.mapping is None:
            return "canonical already"
        raws, self.episodes = self.episodes, [mapped(one, self.mapping) for one in self.episodes]
        for raw, episode in zip(raws, self.episodes, strict=True):
            wanted = by_scipy(raw.lowdim, self.mapping)
            assert episode.lowdim.keys() == wanted.keys()
            for name, values in wanted.items():
                found.close(name, episode.lowdim[name], values, 1e-12)
            for name, camera in self.mapping.cameras.items():
                before, after = (
                    pixels(raw.images[camera.source][0]),
                    pixels(episode.images[name][0]),
                )
                before = before[..., ::-1] if camera.bgr else before
                found.near(name, float(np.abs(before.astype(float) - after).max()), 0)
        return found.text()

    def convert(self) -> str:
        recipe: dict[str, Any] = {
            "source": self.source,
            "mapping": self.mapping,
            "window": {"future": 3, "max_padding_right": 3},
            "keep_failures": True,
            "max_skipped": self.unusable,
        }
        if self.mapping is None:
            first = self.episodes[0]
            recipe |= {"cameras": list(first.images), "fields": list(first.lowdim)}
        checked = ConvertRobot.Recipe.model_validate(recipe)
        ConvertRobot.check(checked, {})
        run_stage(ConvertRobot, self.shards, self.out / "scratch", checked.model_dump(), {})
        found = Found()
        turned = self.mapping.rotate if self.mapping else {}
        stored = ShardSet(self.shards)
        assert len(stored) == len(self.episodes)
        for number, episode in enumerate(self.episodes):
            members = stored.members(number)
            arrays = read_npz(members["lowdim.npz"])
            for name in self.description.fields:
                found.equal(name, arrays[name], np.asarray(episode.lowdim[name], np.float64))
            for camera in self.description.cameras:
                for step, raw in enumerate(episode.images[camera]):
                    kept = bytes(members[f"{camera}_{step:06d}.jpg"])
                    self._compare_stored(found, raw, kept, turned.get(camera, 0), camera)
        return found.text()

    def train(self) -> str:
        """One optimiser step of a tiny policy: merge_stats and train_vla, as in a pipeline."""
        Tokenizer.train(["some text"], 258).save(self.out / "tokenizer")
        data = {"datasets": {"robot": self.shards}}
        run_stage(MergeStats, self.out / "stats", self.out / "scratch", {}, data)
        recipe = {
            "model": {
                "backbone": {"kind": "vlm", **VLM, "language": {"kind": "transformer", **LANGUAGE}},
                "head": _HEAD,
            },
            "data": {"robot": {"batch_size": 4, "inputs": inputs_of(self.description)}},
            "training": {"steps": 1, "schedule": {"warmup": 1}},
            "execute_steps": 1,
        }
        places = {
            "robot": {"robot": self.shards},
            "stats": {"stats": self.out / "stats"},
            "tokenizer": {"tokenizer": self.out / "tokenizer"},
        }
        policy = self.out / "policy"
        run_stage(TrainVla, policy, self.out / "train", recipe, places)
        (row,) = curve(policy)
        assert math.isfinite(row["loss"]) and math.isfinite(row["grad_norm"])
        assert row["grad_norm"] > 0
        return f"loss {row['loss']:.2f}, gradient {row['grad_norm']:.2g}"

    def export(self) -> str:
        export_lerobot(str(self.shards), self.out / "lerobot", images="png")
        source = Lerobot(path=str(self.out / "lerobot"))
        stored, found = ShardSet(self.shards), Found()
        refs = source.episodes()
        assert len(refs) == len(stored)
        for number, ref in enumerate(refs):
            members, episode = stored.members(number), source.read_episode(ref)
            for name, values in read_npz(members["lowdim.npz"]).items():
                if name not in _OWN_COLUMNS:
                    found.equal(name, episode.lowdim[name], values)
            for camera in self.description.cameras:
                for step, picture in enumerate(episode.images[f"observation.images.{camera}"]):
                    kept = pixels(bytes(members[f"{camera}_{step:06d}.jpg"]))
                    off = np.abs(kept.astype(float) - pixels(picture)).max()
                    found.near(f"{camera} {step}", float(off), 0)
        return found.text()

    @property
    def shards(self) -> Path:
        return self.out / "shards"

    @property
    def description(self) -> RobotDescription:
        return read_robot(self.shards)

    def _originals_at(self) -> Path:
        return self.journey.path if self.journey.mapping == "" else self.journey.fixture

    def _only_episode(self, **options: Any) -> Episode:
        source = self.journey.source(**options)
        (ref,) = source.episodes()
        return source.read_episode(ref)

    def _collect(self) -> None:
        for ref in self.source.episodes():
            try:
                episode = self.source.read_episode(ref)
                for frames in episode.images.values():
                    frames[len(frames) - 1]
            except UnusableEpisode:
                self.unusable += 1
                continue
            self.episodes.append(episode)

    def _mapping(self) -> RobotMapping | None:
        if self.journey.mapping == "":
            return None
        if self.journey.mapping is None:
            drafted = raw_contents(self.source, str(self.journey.path))[0].mapping
            document = yaml.safe_load(drafted)
            if "add a line `instruction" in drafted:
                document |= WORDS
            return validate(RobotMapping, document, "draft")
        made: RobotMapping = validate(AnyMapping, self.journey.mapping, "mapping")
        return made

    @staticmethod
    def _compare_stored(
        found: Found, raw: bytes | np.ndarray, kept: bytes, turn: int, camera: str
    ) -> None:
        """JPEG that needs no turn stays the file it is; other pictures become JPEG."""
        if isinstance(raw, bytes) and raw[:2] == b"\xff\xd8" and not turn:
            assert raw == kept, camera
            found.near(camera, 0, 0)
            return
        wanted = np.rot90(pixels(raw), turn // 90)
        stored = pixels(kept)
        found.near(camera, float(np.abs(wanted.astype(float) - stored).mean()), JPEG_LEVELS)
        assert read_digits(stored) == read_digits(wanted), camera


def inputs_of(described: RobotDescription) -> dict[str, Any]:
    """A policy that takes all: measured fields in, commanded ones out, relative where they can be;
    of data that hold no commands, what is measured is to be predicted."""
    fields = list(described.fields)
    relative = {pose for group in described.relative for pose in group.poses}
    commands = [f for f in fields if f.startswith("robot__action__")] or fields
    actions = [
        f"{f}_relative" if f.removesuffix("__xyz").removesuffix("__rot_6d") in relative else f
        for f in commands
    ]
    return {
        "cameras": list(described.cameras),
        "image": {"size": [16, 16]},
        "proprio_fields": [f for f in fields if f.startswith("robot__actual__")],
        "action_fields": actions,
        "horizon": 4,
    }


def by_scipy(raw: Mapping[str, np.ndarray], mapping: RobotMapping) -> dict[str, np.ndarray]:
    """What a mapping means, once more: SciPy's rotations, and nothing of ours."""
    poses: dict[str, tuple[np.ndarray, Rotation]] = {}
    for name, pose in sorted(mapping.poses.items(), key=lambda one: one[1].delta is not None):
        factor = {"m": 1, "cm": 1e-2, "mm": 1e-3}[pose.xyz.unit]
        xyz = factor * _dims(raw, pose.xyz)
        turn = _rotation(_dims(raw, pose.rotation), pose.rotation.form, pose.rotation.unit)
        if pose.delta is not None:
            assert pose.delta.axes == "world"
            origin, axes = poses[pose.delta.of]
            xyz, turn = origin + xyz, turn * axes
        poses[name] = xyz, turn
    found = {}
    for name in mapping.poses:
        found[f"{name}__xyz"] = poses[name][0]
        found[f"{name}__rot_6d"] = poses[name][1].as_matrix()[:, :2].reshape(-1, 6)
    for name, value in mapping.fields.items():
        values = _dims(raw, value)
        if value.closed is not None:
            values = np.clip((values - value.closed) / (value.open - value.closed), 0, 1)
        found[name] = values
    return found


def _dims(raw: Mapping[str, np.ndarray], part: Any) -> np.ndarray:
    values = np.asarray(raw[part.source], np.float64)
    first, end = part.dims or (0, values.shape[1])
    return part.scale * values[:, first:end]


def _rotation(values: np.ndarray, form: str, unit: str) -> Rotation:
    if form == "quaternion_xyzw":
        return Rotation.from_quat(values)
    if form == "axis_angle":
        return Rotation.from_rotvec(values)
    assert form == "euler_xyz", form
    return Rotation.from_euler("xyz", values, degrees=unit == "deg")
