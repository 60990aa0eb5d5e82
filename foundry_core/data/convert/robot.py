"""Demonstrations → robot shards with statistics.

One job is one shard: a fixed run of consecutive episodes. A worker reads them, writes the shard's
tar and returns its part of the statistics; the parts are merged in shard order. So bytes depend on
source and recipe alone, and memory is one episode plus one shard's statistics per worker.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from foundry_core.data.config import WindowConfig
from foundry_core.data.contract.statements import DataContract
from foundry_core.data.convert.read import counted, read_bounded
from foundry_core.data.convert.report import Report, Skip
from foundry_core.data.convert.robot_samples import (
    RobotSettings,
    StoredEpisode,
    episode_sample,
    stored_episode,
    window_samples,
)
from foundry_core.data.mapping.apply import mapped
from foundry_core.data.robot.episodes import UnusableEpisode, check_episode
from foundry_core.data.robot.poses import add_relative_fields, check_rotations
from foundry_core.data.robot.windows import anchors, cut_windows
from foundry_core.data.shards.description import CameraSize, RobotDescription
from foundry_core.data.shards.write import (
    ShardInfo,
    ShardSample,
    renumber_shards,
    shard_name,
    write_manifest,
    write_shard,
)
from foundry_core.data.sources.base import RobotFormat, SourceRef
from foundry_core.data.statistics.builder import StatisticsBuilder
from foundry_core.data.statistics.dataset import DatasetStatistics, merge_statistics
from foundry_core.errors import FoundryError
from foundry_core.parallel import ray_map, ray_session


@dataclass(frozen=True, kw_only=True)
class RobotJob:
    """One shard to write. taken: ids that an earlier shard has."""

    source: RobotFormat
    settings: RobotSettings
    shard: int
    refs: tuple[SourceRef, ...]
    out: Path
    taken: frozenset[str] = frozenset()


@dataclass(kw_only=True)
class RobotPart:
    """What one shard's worker saw. statistics: None where no episode made a window."""

    shard: ShardInfo
    statistics: DatasetStatistics | None = None
    ids: list[str] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    tasks: Counter[str] = field(default_factory=Counter)
    windows: int = 0
    cameras: dict[str, CameraSize] = field(default_factory=dict)
    dims: dict[str, int] = field(default_factory=dict)
    drawn: dict[str, set[tuple[int, int]]] = field(default_factory=dict)
    hz: set[float] = field(default_factory=set)
    failures: int = 0
    skipped: list[Skip] = field(default_factory=list)

    def count(self, episode: StoredEpisode, windows: int) -> None:
        """Adds one converted episode."""
        self.ids.append(episode.id)
        self.lengths.append(episode.length)
        self.tasks[episode.task] += 1
        self.windows += windows
        self.hz.add(episode.hz)
        self.dims |= {name: values.shape[1] for name, values in episode.lowdim.items()}
        for camera, size in episode.drawn.items():
            self.drawn.setdefault(camera, set()).add(size)
        for camera in episode.images.keys() - self.cameras.keys():
            height, width = episode.image_size(camera)
            self.cameras[camera] = CameraSize(height=height, width=width)


def convert_shard(job: RobotJob) -> RobotPart:
    """Runs in a worker."""
    name = shard_name(job.shard)
    part = RobotPart(shard=ShardInfo(shard=name, num_sequences=0))
    builder = StatisticsBuilder(past=job.settings.window.past)
    part.shard = write_shard(job.out / f"{name}.tar", _samples(job, part, builder))
    if part.windows:
        part.statistics = builder.finish()
    return part


def _samples(job: RobotJob, part: RobotPart, builder: StatisticsBuilder) -> Iterator[ShardSample]:
    window = job.settings.window
    for episode in _episodes(job, part):
        steps = anchors(episode.length, window)
        cut, past, future = cut_windows(episode.lowdim, steps, window)
        real = past | future
        windows = add_relative_fields(cut, window.past, job.settings.groups, real)
        if len(steps):
            builder.add(episode.id, windows, real)
        part.count(episode, len(steps))
        if job.settings.layout == "episode":
            yield episode_sample(episode)
        else:
            masks = {"past_mask": past, "future_mask": future}
            yield from window_samples(episode, job.settings, steps, windows | masks)


def _episodes(job: RobotJob, part: RobotPart) -> Iterator[StoredEpisode]:
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
            yield stored


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
) -> dict[str, int]:
    """Writes shards, manifest, dataset.json, stats.json and report.json; returns counts."""
    refs = source.episodes()
    groups = [refs[i : i + episodes_per_shard] for i in range(0, len(refs), episodes_per_shard)]
    jobs = [
        RobotJob(source=source, settings=settings, shard=number, refs=tuple(group), out=out)
        for number, group in enumerate(groups)
    ]
    report = Report("episodes", max_skipped)
    parts: list[RobotPart] = []
    with ray_session(workers):
        ids: set[str] = set()
        for job, part in zip(jobs, ray_map(convert_shard, jobs, workers=workers), strict=True):
            if taken := ids.intersection(part.ids):
                part = convert_shard(replace(job, taken=frozenset(taken)))
            ids.update(part.ids)
            parts.append(part)
            report.add(len(part.ids), part.skipped)
            report.leave_out("not successful", part.failures)
            progress(len(parts), len(jobs), f"{report.converted} episodes")
    report.write(out)
    write_manifest(out, renumber_shards(out, [part.shard for part in parts]))
    _merged_statistics(parts, settings.window).save(out / "stats.json")
    description = _description(settings, parts)
    description.write(out)
    return {
        "episodes": report.converted,
        "windows": description.windows,
        "skipped": len(report.skipped),
    }


def _merged_statistics(parts: Sequence[RobotPart], window: WindowConfig) -> DatasetStatistics:
    statistics = [part.statistics for part in parts if part.statistics is not None]
    if not statistics:
        raise FoundryError(
            f"no episode is long enough for a window of {window.length} steps",
            "shorten the window, or allow more padding",
        )
    return merge_statistics(statistics).collapse()


def _description(settings: RobotSettings, parts: Sequence[RobotPart]) -> RobotDescription:
    rates = {rate for part in parts for rate in part.hz}
    if len(rates) > 1:
        raise FoundryError(
            f"episodes of one dataset have different rates {sorted(rates)} Hz",
            "convert them as separate datasets",
        )
    (hz,) = rates
    return RobotDescription(
        layout=settings.layout,
        hz=hz,
        cameras={name: size for part in parts for name, size in part.cameras.items()},
        fields={name: dims for part in parts for name, dims in part.dims.items()},
        relative=settings.groups,
        window=settings.window,
        image_steps=settings.image_steps,
        tasks=sum((part.tasks for part in parts), Counter()),
        episodes=sum(len(part.ids) for part in parts),
        lengths=[length for part in parts for length in part.lengths],
        windows=sum(part.windows for part in parts),
        contract=_contract(settings.contract, hz, parts),
    )


def _contract(contract: DataContract, hz: float, parts: Sequence[RobotPart]) -> DataContract:
    """What the source states, with what was found. FoundryError where the two differ."""
    if contract.hz not in (None, hz):
        raise FoundryError(f"the source states {contract.hz:g} Hz, its episodes {hz:g} Hz")
    cameras = {}
    for name, camera in contract.cameras.items():
        sizes = set().union(*(part.drawn.get(name, set()) for part in parts))
        drawn = sizes.pop() if len(sizes) == 1 else None
        cameras[name] = camera.model_copy(update={"drawn": drawn})
    dims = {name: size for part in parts for name, size in part.dims.items()}
    fields = {
        name: meaning.model_copy(update={"dims": dims[name]})
        for name, meaning in contract.fields.items()
    }
    return contract.model_copy(update={"hz": hz, "cameras": cameras, "fields": fields})
