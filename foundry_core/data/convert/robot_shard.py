"""One shard of robot data, as a worker makes it of some episodes, and what it says of them.

Memory is that of the episode that is being read, without its pictures.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from foundry_core.data.convert.doubts import Numbers, watched
from foundry_core.data.convert.paraphrases import KIND
from foundry_core.data.convert.read import counted, read_bounded
from foundry_core.data.convert.report import Skip
from foundry_core.data.convert.robot_samples import (
    RobotSettings,
    StoredEpisode,
    episode_sample,
    stored_episode,
    window_samples,
)
from foundry_core.data.convert.shuffle import Span, note_spans
from foundry_core.data.convert.weights import applies
from foundry_core.data.images import image_size
from foundry_core.data.mapping.apply import mapped
from foundry_core.data.robot.episodes import UnusableEpisode, check_episode
from foundry_core.data.robot.poses import add_relative_fields, check_rotations
from foundry_core.data.robot.windows import anchors, cut_windows
from foundry_core.data.shards.description import CameraSize
from foundry_core.data.shards.write import ShardInfo, ShardWriter
from foundry_core.data.sources.base import RobotFormat, SourceRef
from foundry_core.data.statistics.builder import StatisticsBuilder
from foundry_core.data.statistics.leaf import save_leaves

_PART, SHARD, LEAF = "part.json", "shard.tar", "statistics.leaves.npz"
# Windows in memory at once: 40 MB of 150 numbers and 16 steps.
_WINDOWS = 2048


@dataclass(frozen=True, kw_only=True)
class RobotJob:
    """One shard to write. taken: ids that an earlier shard has."""

    source: RobotFormat
    settings: RobotSettings
    refs: tuple[SourceRef, ...]
    # Ids of earlier units: who has one of them is the second of two.
    taken: frozenset[str] = frozenset()


@dataclass(kw_only=True)
class RobotPart:
    """What one shard's worker saw."""

    shard: ShardInfo
    ids: list[str] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    tasks: Counter[str] = field(default_factory=Counter)
    windows: int = 0
    cameras: dict[str, CameraSize] = field(default_factory=dict)
    dims: dict[str, int] = field(default_factory=dict)
    drawn: dict[str, set[tuple[int, int]]] = field(default_factory=dict)
    hz: set[float] = field(default_factory=set)
    failures: int = 0
    tally: Counter[str] = field(default_factory=Counter)
    anchors: list[int] = field(default_factory=list)
    depth: dict[str, CameraSize] = field(default_factory=dict)
    weights: list[tuple[int, float]] = field(default_factory=list)
    numbers: Numbers = field(default_factory=Numbers)
    skipped: list[Skip] = field(default_factory=list)

    def write(self, folder: Path) -> None:
        (folder / _PART).write_bytes(TypeAdapter(RobotPart).dump_json(self))

    @classmethod
    def read(cls, folder: Path) -> "RobotPart":
        return TypeAdapter(RobotPart).validate_json((folder / _PART).read_bytes())

    def count(self, episode: StoredEpisode, windows: int) -> None:
        """Adds one converted episode."""
        self.ids.append(episode.id)
        self.lengths.append(episode.length)
        self.tasks[episode.task] += 1
        self.windows += windows
        self.hz.add(episode.hz)
        self.anchors.append(windows)
        self.tally["success_unknown"] += episode.success is None
        self.tally["paraphrased"] += KIND in episode.instructions
        self.numbers.add(episode.numbers)
        self.dims |= {name: values.shape[1] for name, values in episode.lowdim.items()}
        for camera, size in episode.drawn.items():
            self.drawn.setdefault(camera, set()).add(size)
        for camera in episode.images.keys() - self.cameras.keys():
            height, width = episode.image_size(camera)
            self.cameras[camera] = CameraSize(height=height, width=width)
        for camera in episode.deep.keys() - self.depth.keys():
            height, width = image_size(episode.deep[camera][0], camera)
            self.depth[camera] = CameraSize(height=height, width=width)


def make_shard(job: RobotJob, folder: Path) -> None:
    """Runs in a worker: shard, index, part.json and, where there are windows, a leaf of statistics
    and of the layout "sample" the spans of the samples."""
    part = RobotPart(shard=ShardInfo(shard="", num_sequences=0))
    builder = StatisticsBuilder(past=job.settings.window.past)
    writer = ShardWriter(folder / SHARD)
    for ref, episode in _episodes(job, part):
        windows = _Windows(episode, job.settings)
        try:
            with writer.whole():
                spans = list(_write(writer, episode, windows))
        except UnusableEpisode as error:  # a picture that was only now looked at
            part.skipped.append((ref.name, str(error)))
            continue
        note_spans(folder, spans)
        for _, cut, past, future in windows:
            builder.add(episode.id, cut, past | future)
        part.count(episode, windows.number)
        part.weights += episode.weights(job.settings.window) or []
        for number, rule in enumerate(job.settings.weights, start=1):
            part.tally[f"weight_rule_{number}"] += applies(rule, episode, ref.name)
        if episode.left_out is not None:
            seen = len(anchors(episode.length, job.settings.window))
            part.tally.update(anchors_seen=seen, anchors_still=seen - windows.number)
    part.shard = writer.close()
    if part.windows:
        save_leaves(folder / LEAF, builder.finish().leaves)
    part.write(folder)


class _Windows:
    """The windows of an episode, some at a time: (anchors, {name: [N, T, D]}, past mask, future
    mask), relative fields included. They may be asked for twice; few are cut once."""

    def __init__(self, episode: StoredEpisode, settings: RobotSettings) -> None:
        self._episode, self.settings = episode, settings
        self._anchors = episode.anchors(settings.window)
        self._kept: tuple[Any, ...] | None = None

    @property
    def number(self) -> int:
        return len(self._anchors)

    def __iter__(
        self,
    ) -> "Iterator[tuple[np.ndarray, Mapping[str, np.ndarray], np.ndarray, np.ndarray]]":
        if self._kept is not None:
            yield self._kept
            return
        for start in range(0, self.number, _WINDOWS):
            steps, window = self._anchors[start : start + _WINDOWS], self.settings.window
            cut, past, future = cut_windows(self._episode.lowdim, steps, window)
            windows = add_relative_fields(cut, window.past, self.settings.groups, past | future)
            if self.number <= _WINDOWS:
                self._kept = steps, windows, past, future
            yield steps, windows, past, future


def _write(writer: ShardWriter, episode: StoredEpisode, windows: _Windows) -> Iterator[Span]:
    """Adds an episode's samples; where each window's lies."""
    settings = windows.settings
    if settings.layout == "episode":
        writer.add(*episode_sample(episode, settings.window))
        return
    for steps, cut, past, future in windows:
        masks = {"past_mask": past, "future_mask": future}
        weights = np.ones(len(steps)) if episode.weight is None else episode.weight[steps]
        samples = window_samples(episode, settings, steps, {**cut, **masks})
        for weight, (key, members) in zip(weights.tolist(), samples, strict=True):
            start = writer.bytes
            writer.add(key, members)
            yield Span(key=key, start=start, bytes=writer.bytes - start, weight=weight)


def _episodes(job: RobotJob, part: RobotPart) -> Iterator[tuple[SourceRef, StoredEpisode]]:
    """Those of the job that are to be stored; the others are counted in `part`."""
    for ref in job.refs:
        try:
            with counted(ref.name):
                stored = _stored(job, part, ref)
        except UnusableEpisode as error:
            part.skipped.append((ref.name, str(error)))
            continue
        if stored is None:
            part.failures += 1
        else:
            yield ref, stored


def _stored(job: RobotJob, part: RobotPart, ref: SourceRef) -> StoredEpisode | None:
    """None where the recipe leaves it out. UnusableEpisode names what is wrong with it."""
    settings = job.settings
    raw = read_bounded(job.source, ref)
    episode = raw if settings.mapping is None else mapped(raw, settings.mapping)
    check_episode(episode, settings.cameras, settings.fields)
    check_rotations(episode.lowdim, settings.groups)
    if episode.success is False and not settings.keep_failures:
        return None
    if episode.id in job.taken or episode.id in part.ids:
        raise UnusableEpisode(
            f"two episodes have the id {episode.id!r}", "rename one: ids identify samples"
        )
    stored = stored_episode(episode, settings, ref.name)
    for name, values in stored.lowdim.items():
        dims = settings.contract.fields[name].dims or part.dims.get(name, values.shape[1])
        if values.ndim != 2 or values.shape[1] != dims:
            raise UnusableEpisode(
                f"episode {episode.id!r}: field {name!r} is {list(values.shape)}, others have "
                f"{dims} numbers per step",
                "fields have the same number in all episodes",
            )
    seen = watched(raw, episode, settings.mapping, settings.contract.fields)
    return replace(stored, numbers=seen)
