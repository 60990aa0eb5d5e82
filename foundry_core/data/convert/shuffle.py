"""Samples of all episodes mixed over all shards, without holding them.

The order is that of a number made of seed and key, so it depends on neither workers nor shards nor
on where an episode lay in its source. The first pass notes which bytes of its tar a sample is; then
the notes, 36 bytes a sample, are sorted bucket by bucket, and workers copy the samples of each new
shard out of the tars.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tarfile import open as open_tar

import numpy as np
from pydantic import TypeAdapter

from foundry_core.data.config import Shuffle
from foundry_core.data.convert.pace import Pace
from foundry_core.data.convert.units import Unit, UnitStore, place_file
from foundry_core.data.convert.weights import WeightRuns, joined_runs, runs_of
from foundry_core.data.shards.index import index_path, split_name
from foundry_core.data.shards.tar import read_span
from foundry_core.data.shards.write import ShardInfo, ShardWriter, shard_name
from foundry_core.files import hash64

_SPANS, _SHARD, _INFO = "spans.npy", "shard.tar", "shard.json"
_SPAN = np.dtype([("key", "<u8"), ("start", "<i8"), ("bytes", "<i8"), ("weight", "<f8")])
_NOTE = np.dtype([*_SPAN.descr, ("unit", "<i4")])
_BUCKETS = 256


@dataclass(frozen=True, kw_only=True)
class Span:
    """Where a sample lies in its unit's tar, and how often it is drawn beside others."""

    key: str
    start: int
    bytes: int
    weight: float = 1.0


def note_spans(folder: Path, spans: Iterable[Span]) -> None:
    """Appends samples of a unit's tar to its notes."""
    rows = [(hash64(one.key), one.start, one.bytes, one.weight) for one in spans]
    if rows:
        with (folder / _SPANS).open("ab") as stream:
            np.array(rows, _SPAN).tofile(stream)


@dataclass(frozen=True, kw_only=True)
class _Mix:
    """A new shard: (tar, [(first byte, bytes), ...]) sample by sample."""

    samples: tuple[tuple[Path, int, int], ...]


def make_mix(job: _Mix, folder: Path) -> None:
    """Runs in a worker."""
    writer = ShardWriter(folder / _SHARD)
    for path, start, size in job.samples:
        with path.open("rb") as stream:
            span = read_span(stream, start, size)
        with open_tar(fileobj=BytesIO(span), mode="r:") as tar:
            members = {m.name: span[m.offset_data : m.offset_data + m.size] for m in tar}
        named = {split_name(name): data for name, data in members.items()}
        (key,) = {key for key, _ in named}
        writer.add(key, {extension: data for (_, extension), data in named.items()})
    (folder / _INFO).write_bytes(TypeAdapter(ShardInfo).dump_json(writer.close()))


class ShuffledShards:
    """Takes the units' tars in order and writes shards of their samples mixed."""

    def __init__(self, out: Path, shuffle: Shuffle, scratch: str) -> None:
        self._out, self._shuffle = out, shuffle
        self._buckets = [Path(scratch, f"bucket_{number:03d}") for number in range(_BUCKETS)]
        self._salt = np.uint64(hash64(f"shuffle {shuffle.seed}"))
        self._units: list[Path] = []
        self._samples = 0
        self._weights: WeightRuns = []

    def weights(self, _: WeightRuns) -> WeightRuns:
        """Of the samples as they lie in the mixed shards; of those in the units' order given."""
        return self._weights

    def add(self, folder: Path, info: ShardInfo) -> None:
        """Sorts the notes of a unit into the buckets."""
        if not info.num_sequences:
            return
        spans = np.fromfile(folder / _SPANS, _SPAN)
        notes = np.empty(len(spans), _NOTE)
        for name in ("start", "bytes", "weight"):
            notes[name] = spans[name]
        notes["key"], notes["unit"] = _mixed(spans["key"] ^ self._salt), len(self._units)
        self._units.append(folder)
        self._samples += len(notes)
        places = (notes["key"] >> np.uint64(56)).astype(int)
        for place in np.unique(places).tolist():
            with self._buckets[place].open("ab") as stream:
                notes[places == place].tofile(stream)

    def finish(self, store: UnitStore, progress: Callable[..., None]) -> list[ShardInfo]:
        """Copies; returns the shards."""
        per_shard = self._shuffle.samples_per_shard
        pace = Pace(progress, -(-self._samples // per_shard), "samples")
        infos: list[ShardInfo] = []
        for folder, reused in store.results(make_mix, None, self._mixes(per_shard)):
            target = self._out / f"{shard_name(len(infos))}.tar"
            place_file(folder / _SHARD, target)
            place_file(index_path(folder / _SHARD), index_path(target))
            info = TypeAdapter(ShardInfo).validate_json((folder / _INFO).read_bytes())
            infos.append(ShardInfo(**{**vars(info), "shard": target.name.removesuffix(".tar")}))
            pace.step(f"mixed {len(infos)} shards", reused=reused, each=per_shard)
        return infos

    def _mixes(self, per_shard: int) -> Iterator[Unit[_Mix]]:
        notes = np.empty(0, _NOTE)
        for bucket in self._buckets:
            if bucket.exists():
                more = np.fromfile(bucket, _NOTE)
                bucket.unlink()
                # Equal numbers, of equal keys: by where they lie.
                more = more[np.lexsort((more["start"], more["unit"], more["key"]))]
                notes = np.concatenate([notes, more])
            while len(notes) >= per_shard:
                yield self._mix(notes[:per_shard])
                notes = notes[per_shard:]
        if len(notes):
            yield self._mix(notes)

    def _mix(self, notes: np.ndarray) -> Unit[_Mix]:
        self._weights = joined_runs([*self._weights, *runs_of(notes["weight"].tolist())])
        rows = [(self._units[u], s, b) for u, s, b in notes[["unit", "start", "bytes"]].tolist()]
        state = [[path.name, start, size] for path, start, size in rows]
        samples = tuple((path / _SHARD, start, size) for path, start, size in rows)
        return Unit(
            name="a mixed shard",
            work=_Mix(samples=samples),
            state=lambda: state,
            needs=str(samples[0][0]),
        )


def _mixed(keys: np.ndarray) -> np.ndarray:
    """splitmix64's last step: a permutation of the 64-bit numbers that looks like none."""
    mixed = keys.astype(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed ^ (mixed >> np.uint64(31))
