"""What the original readers gave for the recordings in tests/real_data.py, and how far ours are.

A difference that is not tolerated is an AssertionError that says where.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from foundry_core.data.images import decode_image
from foundry_core.data.robot.episodes import Episode
from tests.lerobot_sets import read_digits


@dataclass(kw_only=True)
class Found:
    """What was compared. levels: the furthest that a picture's grey levels lay off, on average."""

    values: int = 0
    pictures: int = 0
    levels: float = 0.0

    def equal(self, name: str, got: np.ndarray, wanted: np.ndarray) -> None:
        """Numbers to the bit, laid flat; whole numbers and truth values as float64."""
        flat = wanted.reshape(len(wanted), -1)
        if flat.dtype.kind != "f":
            flat = flat.astype(np.float64)
        assert got.shape == flat.shape, f"{name}: {got.shape} for {flat.shape}"
        assert np.array_equal(got, flat, equal_nan=True), f"{name} differs"
        self.values += flat.size

    def close(self, name: str, got: np.ndarray, wanted: np.ndarray, tolerance: float) -> None:
        """Numbers that were computed in another way."""
        far = float(np.abs(got - wanted).max())
        assert far <= tolerance, f"{name} is {far} off"
        self.values += wanted.size

    def near(self, name: str, off: float, tolerance: float) -> None:
        """One picture, `off` grey levels from what it should be."""
        assert off <= tolerance, f"{name} is {off:.2f} grey levels off"
        self.pictures += 1
        self.levels = max(self.levels, off)

    def text(self) -> str:
        numbers = f"{self.values:,} numbers" if self.values else ""
        pictures = f"{self.pictures} picture{'s' * (self.pictures > 1)}" if self.pictures else ""
        if self.pictures:
            pictures += " equal" if self.levels == 0 else f" within {self.levels:.2f}"
        return ", ".join(part for part in (numbers, pictures) if part)


@dataclass(frozen=True, kw_only=True)
class Original:
    """One episode. error: the original reader refused it. pictures: {camera: {step: facts}}, where
    facts are those of expected.json, or the pixels."""

    key: str
    length: int = 0
    fields: Mapping[str, np.ndarray] = field(default_factory=dict)
    pictures: Mapping[str, Mapping[int, Any]] = field(default_factory=dict)
    error: bool = False


def pixels(picture: bytes | np.ndarray) -> np.ndarray:
    return decode_image(picture) if isinstance(picture, bytes) else np.asarray(picture)


def compare(found: Found, episode: Episode, original: Original, way: "Way") -> None:
    """An episode that we read against what the original reader gave."""
    assert episode.length == original.length
    for name, wanted in original.fields.items():
        found.equal(f"{original.key} {name}", episode.lowdim[name], wanted)
    for camera, steps in original.pictures.items():
        assert len(episode.images[camera]) == original.length
        for step, facts in steps.items():
            ours = pixels(episode.images[camera][step])
            where = f"{original.key} {camera} {step}"
            if isinstance(facts, np.ndarray):
                found.near(where, float(np.abs(ours.astype(float) - facts).mean()), way.levels)
            else:
                compare_facts(found, where, ours, facts, way)


@dataclass(frozen=True, kw_only=True)
class Way:
    """How a format's pictures may differ: grey levels between two libraries' decoders; channels
    that a camera's driver swapped; codes that expected.json reads from pictures upside down."""

    levels: float = 0.0
    swapped: bool = False
    upside_down: bool = False


def compare_facts(
    found: Found, where: str, ours: np.ndarray, facts: Mapping[str, Any], way: Way
) -> None:
    ours = ours[..., ::-1] if way.swapped else ours
    assert list(ours.shape) == facts["shape"], where
    off = float(np.abs(ours.reshape(-1, 3).mean(axis=0) - facts["mean"]).max())
    found.near(where, off, way.levels)
    assert read_digits(ours[::-1] if way.upside_down else ours) == facts["code"], where
    if "sha256_pixels" in facts:
        digest = hashlib.sha256(np.ascontiguousarray(ours)).hexdigest()
        assert digest == facts["sha256_pixels"], where


def of_fixture(folder: Path) -> Iterator[Original]:
    """expected.json and arrays.npz."""
    document = json.loads((folder / "expected.json").read_text())
    with np.load(folder / "arrays.npz") as stored:
        arrays = dict(stored.items())
    for one in document["episodes"]:
        key = one["key"]
        mine = {n.partition("|")[2]: v for n, v in arrays.items() if n.startswith(f"{key}|")}
        yield Original(
            key=key,
            length=one["length"],
            fields=mine,
            pictures={
                camera: {int(step): facts for step, facts in steps.items()}
                for camera, steps in one.get("images", {}).items()
            },
            error=bool(one.get("error")),
        )


def of_spartan(root: Path) -> Iterator[Original]:
    """NumPy's own reader; the actions by the documented order of their 20 columns."""
    columns = {
        "poses__right::panda__xyz": (0, 3),
        "poses__right::panda__rot_6d": (3, 9),
        "poses__left::panda__xyz": (9, 12),
        "poses__left::panda__rot_6d": (12, 18),
        "grippers__right::panda_hand": (18, 19),
        "grippers__left::panda_hand": (19, 20),
    }
    import yaml

    for file in sorted(root.glob("**/processed/observations.npz")):
        names = yaml.safe_load((file.parent / "metadata.yaml").read_text())
        names = names["camera_id_to_semantic_name"]
        with np.load(file) as stored, np.load(file.parent / "actions.npz") as acted:
            fields = {
                name: stored[name]
                for name in stored.files
                if name.startswith("robot__") and stored[name].dtype.kind == "f"
            }
            actions = acted["actions"]
            cameras = {names[n]: dict(enumerate(stored[n])) for n in names if n in stored.files}
        for name, (first, end) in columns.items():
            fields[f"robot__action__{name}"] = actions[:, first:end]
        yield Original(
            key=str(file.parent.parent.relative_to(root)),
            length=len(actions),
            fields=fields,
            pictures=cameras,
        )


def of_simulator(root: Path) -> Iterator[Original]:
    """tarfile, NumPy and Pillow."""
    from PIL import Image

    for file in sorted(root.glob("episodes/*/*.tar")):
        with tarfile.open(file) as tar:
            members = {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}
        with np.load(io.BytesIO(members["lowdim.npz"])) as arrays:
            fields = dict(arrays.items())
        cameras: dict[str, dict[int, np.ndarray]] = {}
        for name in sorted(members):
            camera, slash, _ = name.partition("/")
            if slash:
                shown = cameras.setdefault(camera, {})
                shown[len(shown)] = np.asarray(Image.open(io.BytesIO(members[name])))
        yield Original(
            key=file.stem, length=len(next(iter(fields.values()))), fields=fields, pictures=cameras
        )


def topics_equal(folder: Path, read: Any, way: Way) -> Found:
    """A recording of ROS, topic by topic: one that is its own clock gives all of its messages.
    read(**options of the source) → the episode."""
    document = json.loads((folder / "expected.json").read_text())
    found = Found()
    with np.load(folder / "arrays.npz") as arrays:
        for topic, wanted in document["topics"].items():
            slug = topic.strip("/").replace("/", "_")
            if "values" in wanted:
                continue  # words: compared by tests/data/sources/robot/test_ros.py
            stamps = arrays[f"{slug}|stamp" if f"{slug}|stamp" in arrays else f"{slug}|log"]
            rate = (len(stamps) - 1) * 1e9 / float(stamps.max() - stamps.min())
            episode = read(topics={"x": {"topic": topic}}, clock=topic, hz=rate, stale=1)
            order = np.argsort(stamps, kind="stable")
            _numbers(found, episode, arrays, slug, order)
            for number, facts in wanted.get("images", {}).items():
                picture = pixels(episode.images["x"][order.tolist().index(int(number))])
                facts = facts.get("as_rgb", facts)
                compare_facts(found, f"{topic} {number}", picture, facts, way)
    return found


def _numbers(
    found: Found, episode: Episode, arrays: Any, slug: str, order: Sequence[int] | np.ndarray
) -> None:
    for name in ("position", "velocity"):
        if f"{slug}|{name}" in arrays:
            found.equal(slug, episode.lowdim[f"x/{name}"], arrays[f"{slug}|{name}"][order])
    if f"{slug}|pose_xyz_xyzw" in arrays:
        pose = np.concatenate([episode.lowdim["x/position"], episode.lowdim["x/orientation"]], 1)
        found.equal(slug, pose, arrays[f"{slug}|pose_xyz_xyzw"][order])
