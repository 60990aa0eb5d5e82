"""Demonstrations → robot shards with statistics.

A unit of work is one shard: a fixed run of consecutive episodes, which a worker makes
(`robot_shard`). Here the tars are put together in their order and what workers say of them is
merged, so that bytes depend on source and recipe alone.
"""

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from foundry_core.config.canonical import canonical
from foundry_core.data.config import Shuffle, SplitConfig, WindowConfig
from foundry_core.data.contract.statements import DataContract
from foundry_core.data.convert.doubts import Numbers
from foundry_core.data.convert.pace import Pace
from foundry_core.data.convert.report import Report
from foundry_core.data.convert.robot_samples import (
    RobotSettings,
)
from foundry_core.data.convert.robot_shard import LEAF, SHARD, RobotJob, RobotPart, make_shard
from foundry_core.data.convert.shuffle import ShuffledShards
from foundry_core.data.convert.split import check_apart, sides
from foundry_core.data.convert.units import Done, SourceState, Unit, UnitStore, place_file
from foundry_core.data.convert.weights import WeightRuns, joined_runs
from foundry_core.data.shards.description import RobotDescription
from foundry_core.data.shards.index import index_path
from foundry_core.data.shards.write import ShardInfo, shard_name, write_manifest
from foundry_core.data.sources.base import RobotFormat, SourceRef
from foundry_core.data.statistics.dataset import DatasetStatistics
from foundry_core.data.statistics.running import RunningStatistics
from foundry_core.errors import FoundryError
from foundry_core.files import hash64


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
            dataset.report.write(out, **dataset.tally(), **dataset.doubted())
            infos = shards.finish(store, progress)
            dataset.statistics().save(out / "stats.json")
            description = dataset.description(shards)
            description.write(out)
            write_manifest(out, infos)  # last: a folder without it is unfinished
    return {
        "episodes": dataset.report.converted,
        "windows": description.windows,
        "skipped": len(dataset.report.skipped),
        "doubts": len(dataset.numbers.doubts()),
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
            place_file(folder / SHARD, target)
            place_file(index_path(folder / SHARD), index_path(target))
            self._infos.append(replace(info, shard=target.name.removesuffix(".tar")))

    def weights(self, runs: WeightRuns) -> WeightRuns:
        return runs

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
        self._weights: WeightRuns = []
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
        self._weights += part.weights
        if part.windows:
            self._statistics.add(folder / LEAF)
        seen = self._seen
        seen.tasks.update(part.tasks)
        seen.tally.update(part.tally)
        seen.depth |= part.depth
        seen.windows += part.windows
        seen.cameras |= part.cameras
        seen.dims |= part.dims
        seen.hz |= part.hz
        seen.numbers.add(part.numbers)
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

    @property
    def numbers(self) -> Numbers:
        return self._seen.numbers

    def doubted(self) -> dict[str, Any]:
        """For the report: doubts in words, and of grippers how much was clipped."""
        return {"doubts": self.numbers.doubts(), "clipped": self.numbers.clipped()}

    def taken(self, part: RobotPart) -> frozenset[str]:
        """Ids of a part that earlier ones have."""
        return frozenset(name for name in part.ids if hash64(name) in self._ids)

    def statistics(self) -> DatasetStatistics:
        """FoundryError where there is no window."""
        statistics = self._statistics.finish()
        if statistics is None:
            raise _no_window(self._settings.window)
        return statistics

    def description(self, shards: "_Shards | ShuffledShards") -> RobotDescription:
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
            weights=joined_runs(shards.weights(self._weights)) if settings.weighted else None,
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
