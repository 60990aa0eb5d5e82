"""Demonstrations → robot shards with statistics.

A unit of work is one shard: a fixed run of consecutive episodes. A worker reads them, writes the
shard's tar and its part of the statistics; here the tars are put together in their order and the
parts are merged. So bytes depend on source and recipe alone, and memory is that of the episode that
is being read, without its pictures.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from foundry_core.config.canonical import canonical
from foundry_core.data.config import Shuffle, SplitConfig, WindowConfig
from foundry_core.data.contract.statements import DataContract
from foundry_core.data.convert.pace import Pace
from foundry_core.data.convert.paraphrases import KIND
from foundry_core.data.convert.read import counted, read_bounded
from foundry_core.data.convert.report import Report, Skip
from foundry_core.data.convert.robot_samples import (
    RobotSettings,
    StoredEpisode,
    episode_sample,
    stored_episode,
    window_samples,
)
from foundry_core.data.convert.shuffle import ShuffledShards, note_spans
from foundry_core.data.convert.split import check_apart, sides
from foundry_core.data.convert.units import Done, SourceState, Unit, UnitStore, place_file
from foundry_core.data.images import image_size
from foundry_core.data.mapping.apply import mapped
from foundry_core.data.robot.episodes import UnusableEpisode, check_episode
from foundry_core.data.robot.poses import add_relative_fields, check_rotations
from foundry_core.data.robot.windows import anchors, cut_windows
from foundry_core.data.shards.description import CameraSize, RobotDescription
from foundry_core.data.shards.index import index_path
from foundry_core.data.shards.write import ShardInfo, ShardWriter, shard_name, write_manifest
from foundry_core.data.sources.base import RobotFormat, SourceRef
from foundry_core.data.statistics.builder import StatisticsBuilder
from foundry_core.data.statistics.dataset import DatasetStatistics
from foundry_core.data.statistics.leaf import save_leaves
from foundry_core.data.statistics.running import RunningStatistics
from foundry_core.errors import FoundryError
from foundry_core.files import hash64

_PART, _SHARD, _LEAF = "part.json", "shard.tar", "statistics.leaves.npz"
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
    writer = ShardWriter(folder / _SHARD)
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
        if episode.left_out is not None:
            seen = len(anchors(episode.length, job.settings.window))
            part.tally.update(anchors_seen=seen, anchors_still=seen - windows.number)
    part.shard = writer.close()
    if part.windows:
        save_leaves(folder / _LEAF, builder.finish().leaves)
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


def _write(
    writer: ShardWriter, episode: StoredEpisode, windows: _Windows
) -> "Iterator[tuple[str, int, int]]":
    """Adds an episode's samples; (key, first byte, bytes) of each window's."""
    settings = windows.settings
    if settings.layout == "episode":
        writer.add(*episode_sample(episode))
        return
    for steps, cut, past, future in windows:
        masks = {"past_mask": past, "future_mask": future}
        for key, members in window_samples(episode, settings, steps, {**cut, **masks}):
            start = writer.bytes
            writer.add(key, members)
            yield key, start, writer.bytes - start


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
    episode = read_bounded(job.source, ref)
    if settings.mapping is not None:
        episode = mapped(episode, settings.mapping)
    check_episode(episode, settings.cameras, settings.fields)
    check_rotations(episode.lowdim, settings.groups)
    if episode.success is False and not settings.keep_failures:
        return None
    if episode.id in job.taken or episode.id in part.ids:
        raise UnusableEpisode(
            f"two episodes have the id {episode.id!r}", "rename one: ids identify samples"
        )
    stored = stored_episode(episode, settings)
    for name, values in stored.lowdim.items():
        dims = settings.contract.fields[name].dims or part.dims.get(name, values.shape[1])
        if values.ndim != 2 or values.shape[1] != dims:
            raise UnusableEpisode(
                f"episode {episode.id!r}: field {name!r} is {list(values.shape)}, others have "
                f"{dims} numbers per step",
                "fields have the same number in all episodes",
            )
    return stored


def convert_robot(
    source: RobotFormat,
    settings: RobotSettings,
    out: Path,
    *,
    episodes_per_shard: int,
    max_skipped: int,
    workers: int,
    progress: Callable[..., None],
    scratch: Path | None = None,
    shuffle: Shuffle | None = None,
    refs: Sequence[SourceRef] | None = None,
    store: UnitStore | None = None,
) -> dict[str, int]:
    """Writes shards, manifest, dataset.json, stats.json and report.json; returns counts. scratch:
    where a killed conversion of the same goes on. shuffle: of samples over all shards. refs: those
    of the source to convert; null: all. store: in place of one in scratch, of several conversions
    that end together."""
    with TemporaryDirectory(prefix="foundry-convert-") as temporary:
        opened = UnitStore(scratch or Path(temporary), workers=workers)
        with opened if store is None else nullcontext(store) as store:
            dataset = _Dataset(settings, Report("episodes", max_skipped), Path(temporary))
            shards = _Shards(out) if shuffle is None else ShuffledShards(out, shuffle, temporary)
            chosen = source.episodes() if refs is None else refs
            jobs = list(_jobs(source, settings, chosen, episodes_per_shard))
            results = _results(store, source, settings)
            pace = Pace(progress, len(jobs), "episodes")
            for job, (folder, reused) in zip(jobs, results(jobs), strict=True):
                part = RobotPart.read(folder)
                if taken := dataset.taken(part):
                    again = replace(job, taken=taken)
                    ((folder, reused),) = results([again])
                    part = RobotPart.read(folder)
                dataset.add(part, folder)
                shards.add(folder, part.shard)
                each = dataset.seen / dataset.parts
                pace.step(f"{dataset.report.converted} episodes", reused=reused, each=each)
            dataset.report.write(out, **dataset.tally())
            infos = shards.finish(store, progress)
            dataset.statistics().save(out / "stats.json")
            description = dataset.description()
            description.write(out)
            write_manifest(out, infos)  # last: a folder without it is unfinished
    return {
        "episodes": dataset.report.converted,
        "windows": description.windows,
        "skipped": len(dataset.report.skipped),
    }


def convert_sides(
    source: RobotFormat,
    settings: RobotSettings,
    out: Path,
    split: SplitConfig | None,
    *,
    workers: int,
    scratch: Path | None = None,
    **how: Any,
) -> dict[str, int]:
    """As `convert_robot`, to which `how` goes, once for training and once for validation; ids are
    the refs' names, which episodes need not be read for. The counts are of training, and of
    validation by names that begin so."""
    counts: dict[str, int] = {}
    with (
        TemporaryDirectory(prefix="foundry-convert-") as temporary,
        UnitStore(scratch or Path(temporary), workers=workers) as store,
    ):
        how |= {"workers": workers, "store": store}
        for folder, refs in sides([(ref.name, ref) for ref in source.episodes()], split).items():
            (out / folder).mkdir(exist_ok=True)
            found = convert_robot(source, settings, out / folder, refs=refs, **how)
            counts |= {f"{folder}_{name}".lstrip("_"): count for name, count in found.items()}
        if split is not None:
            check_apart(out)
    return counts


def settings_json(settings: RobotSettings) -> Any:
    """All of the settings, for the keys of units."""
    return {one.name: canonical(getattr(settings, one.name)) for one in fields(settings)}


def _jobs(
    source: RobotFormat, settings: RobotSettings, refs: Sequence[SourceRef], per_shard: int
) -> Iterator[RobotJob]:
    for start in range(0, len(refs), per_shard):
        group = tuple(refs[start : start + per_shard])
        yield RobotJob(source=source, settings=settings, refs=group)


def _results(
    store: UnitStore, source: RobotFormat, settings: RobotSettings
) -> Callable[[Iterable[RobotJob]], Iterator[Done]]:
    """Of jobs of one conversion, in order."""
    state, stated = SourceState(source), settings_json(settings)
    configs = (source, settings.contract, settings.image, settings.mapping, settings.still)
    return lambda jobs: store.results(
        make_shard, stated, (_unit(job, state) for job in jobs), configs=configs
    )


def _unit(job: RobotJob, state: SourceState) -> Unit[RobotJob]:
    first = job.refs[0]
    return Unit(
        name=first.name,
        work=job,
        state=lambda: [state(job.refs), sorted(job.taken)],
        needs=first.files[0],
    )


class _Shards:
    """The shards of a dataset in the order of the units. Those without samples are left out, so
    that the numbers have no gap that would look like a lost file."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._infos: list[ShardInfo] = []

    def add(self, folder: Path, info: ShardInfo) -> None:
        if info.num_sequences:
            target = self._out / f"{shard_name(len(self._infos))}.tar"
            place_file(folder / _SHARD, target)
            place_file(index_path(folder / _SHARD), index_path(target))
            self._infos.append(replace(info, shard=target.name.removesuffix(".tar")))

    def finish(self, _: UnitStore, __: Callable[..., None]) -> list[ShardInfo]:
        return self._infos


class _Dataset:
    """What all parts say together. Of an episode it keeps about a hundred bytes."""

    def __init__(self, settings: RobotSettings, report: Report, folder: Path) -> None:
        self._settings, self.report = settings, report
        self._statistics = RunningStatistics(folder)
        self._folders: list[Path] = []
        self._ids: set[int] = set()
        self._lengths, self._anchors = array("Q"), array("Q")
        self._seen = RobotPart(shard=ShardInfo(shard="", num_sequences=0))

    @property
    def parts(self) -> int:
        return len(self._folders)

    @property
    def seen(self) -> int:
        """Episodes."""
        left_out = sum(self.report.left_out.values())
        return self.report.converted + len(self.report.skipped) + left_out

    def add(self, part: RobotPart, folder: Path) -> None:
        """The next unit's."""
        self._folders.append(folder)
        self.report.add(len(part.ids), part.skipped)
        self.report.leave_out("not successful", part.failures)
        self._ids.update(map(hash64, part.ids))
        self._lengths.extend(part.lengths)
        self._anchors.extend(part.anchors)
        if part.windows:
            self._statistics.add(folder / _LEAF)
        seen = self._seen
        seen.tasks.update(part.tasks)
        seen.tally.update(part.tally)
        seen.depth |= part.depth
        seen.windows += part.windows
        seen.cameras |= part.cameras
        seen.dims |= part.dims
        seen.hz |= part.hz
        for camera, sizes in part.drawn.items():
            seen.drawn.setdefault(camera, set()).update(sizes)

    def tally(self) -> dict[str, int]:
        """Of what the recipe asked for. FoundryError where it gave paraphrases of other tasks."""
        settings, seen = self._settings, self._seen
        if settings.paraphrases and self.report.converted and not seen.tally["paraphrased"]:
            raise FoundryError(
                f"paraphrases of {', '.join(sorted(settings.paraphrases)[:5])} fit no episode",
                f"the data's tasks are {', '.join(sorted(seen.tasks)[:5])}",
            )
        return dict(seen.tally)

    def taken(self, part: RobotPart) -> frozenset[str]:
        """Ids of a part that earlier ones have."""
        return frozenset(name for name in part.ids if hash64(name) in self._ids)

    def statistics(self) -> DatasetStatistics:
        """FoundryError where there is no window."""
        statistics = self._statistics.finish()
        if statistics is None:
            raise _no_window(self._settings.window)
        return statistics

    def description(self) -> RobotDescription:
        settings, seen = self._settings, self._seen
        if len(seen.hz) > 1:
            raise FoundryError(
                f"episodes of one dataset have different rates {sorted(seen.hz)} Hz",
                "convert them as separate datasets",
            )
        (hz,) = seen.hz
        return RobotDescription(
            layout=settings.layout,
            hz=hz,
            cameras=seen.cameras,
            depth=seen.depth,
            fields=seen.dims,
            relative=settings.groups,
            window=settings.window,
            image_steps=settings.image_steps,
            tasks=seen.tasks,
            episodes=self.report.converted,
            lengths=self._lengths.tolist(),
            anchors=self._anchors.tolist() if settings.still else None,
            windows=seen.windows,
            contract=_contract(settings.contract, hz, seen),
        )


def _no_window(window: WindowConfig) -> FoundryError:
    return FoundryError(
        f"no episode is long enough for a window of {window.length} steps",
        "shorten the window, or allow more padding",
    )


def _contract(contract: DataContract, hz: float, seen: RobotPart) -> DataContract:
    """What the source states, with what was found. FoundryError where the two differ."""
    if contract.hz not in (None, hz):
        raise FoundryError(f"the source states {contract.hz:g} Hz, its episodes {hz:g} Hz")
    cameras = {}
    for name, camera in contract.cameras.items():
        sizes = seen.drawn.get(name, set())
        drawn = next(iter(sizes)) if len(sizes) == 1 else None
        cameras[name] = camera.model_copy(update={"drawn": drawn})
    stored = {
        name: meaning.model_copy(update={"dims": seen.dims[name]})
        for name, meaning in contract.fields.items()
    }
    return contract.model_copy(update={"hz": hz, "cameras": cameras, "fields": stored})
