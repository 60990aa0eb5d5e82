"""Captioned images → caption shards. Workers check and resize; the shards are written in order.

A unit of work is a piece of the source as a tar of its samples, whose members are copied here into
shards of equal numbers of samples.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import TypeAdapter

from foundry_core.config.canonical import canonical
from foundry_core.data.config import ImageConfig, SplitConfig
from foundry_core.data.convert.keys import FirstPieces
from foundry_core.data.convert.pace import Pace
from foundry_core.data.convert.read import read_captioned
from foundry_core.data.convert.report import Report, Skip
from foundry_core.data.convert.split import VALIDATION, empty_side, is_validation
from foundry_core.data.convert.units import SourceState, Unit, UnitStore
from foundry_core.data.images import (
    UPRIGHT,
    decode_image,
    encode_jpeg,
    image_format,
    orientation,
    transform,
)
from foundry_core.data.shards.description import CaptionDescription
from foundry_core.data.shards.index import split_name
from foundry_core.data.shards.write import ShardFolderWriter, ShardWriter, key_fault
from foundry_core.data.sources.base import Broken, Captioned, CaptionFormat, SourceRef
from foundry_core.data.sources.files import tar_files
from foundry_core.errors import FoundryError, printable
from foundry_core.files import encodable, json_line

_SAMPLES, _CHUNK = "samples.tar", "chunk.json"


@dataclass(frozen=True, kw_only=True)
class CaptionJob:
    """A piece of the source to check and resize."""

    source: CaptionFormat
    image: ImageConfig
    ref: SourceRef


@dataclass(frozen=True, kw_only=True)
class CaptionChunk:
    """What became of a piece. names: of all its images."""

    samples: int
    names: set[str]
    skipped: list[Skip]


def prepare(job: CaptionJob, folder: Path) -> None:
    """Runs in a worker: every image is decoded once, so that no broken one reaches a shard."""
    writer = ShardWriter(folder / _SAMPLES)
    names: set[str] = set()
    skipped: list[Skip] = []
    for item in read_captioned(job.source, job.ref):
        if isinstance(item, Broken):
            skipped.append((item.id, item.reason))
        elif reason := _left_out(writer, item, job):
            skipped.append((printable(item.id), reason))
        else:
            names.update(item.images)
    writer.close()
    chunk = CaptionChunk(samples=writer.samples, names=names, skipped=skipped)
    (folder / _CHUNK).write_bytes(TypeAdapter(CaptionChunk).dump_json(chunk))


def _left_out(writer: ShardWriter, item: Captioned, job: CaptionJob) -> str:
    """Adds a sample; why it cannot be, "" where it was."""
    try:
        if fault := key_fault(item.id):
            raise FoundryError(f"sample {item.id!r} cannot be called so: {fault}")
        members = _members(item, job.image)
    except Exception as error:
        return _reason(error)
    if item.id in writer:
        return _twice(item.id, job.ref.name, job.ref.name)
    writer.add(item.id, members)
    return ""


def _twice(key: str, first: str, second: str) -> str:
    """Of two samples that are called the same; pieces of the source are named."""
    where = f"twice in {first}" if first == second else f"in {first} and in {second}"
    return f"two samples have the key {key!r}: it is {where}"


def _reason(error: Exception) -> str:
    return error.message if isinstance(error, FoundryError) else printable(repr(error))


def _members(item: Captioned, config: ImageConfig) -> dict[str, bytes]:
    caption = item.caption
    if not isinstance(caption, str) or not encodable(caption):
        raise FoundryError(f"sample {item.id!r} has the caption {caption!r}, no Unicode text")
    if not caption.strip():
        raise FoundryError(f"sample {item.id!r} has an empty caption")
    members: dict[str, bytes] = {}
    for name, data in item.images.items():
        image = decode_image(data, f"{name} of {item.id}")
        extension = image_format(data) if orientation(data) == UPRIGHT else ""
        if config.size is not None and image.shape[:2] != tuple(config.size):
            resized, _ = transform(image, config.size, config.method)
            data, extension = encode_jpeg(resized, config.jpeg_quality), "jpg"
        elif not extension:
            data, extension = encode_jpeg(image, config.jpeg_quality), "jpg"
        members[extension if name == "image" else f"{name}.{extension}"] = data
    members["txt"] = caption.encode()
    try:
        members["json"] = json_line(item.metadata).encode()
    except (TypeError, ValueError) as error:
        raise FoundryError(f"sample {item.id!r} has metadata that are no JSON: {error}") from error
    return members


def convert_captions(
    source: CaptionFormat,
    out: Path,
    *,
    image: ImageConfig,
    samples_per_shard: int,
    max_skipped: int,
    workers: int,
    progress: Callable[..., None],
    scratch: Path | None = None,
    split: SplitConfig | None = None,
) -> dict[str, int]:
    """Writes shards, manifest, dataset.json and report.json; returns counts. scratch: where a
    killed conversion of the same goes on. split: of samples, by their ids."""
    report = Report("captioned images", max_skipped)
    folders = [out, out / VALIDATION] if split else [out]
    writers = [ShardFolderWriter(folder, samples_per_shard) for folder in folders]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    counts = [0, 0]
    names: set[str] = set()
    with (
        TemporaryDirectory(prefix="foundry-convert-") as temporary,
        UnitStore(scratch or Path(temporary), workers=workers) as store,
        FirstPieces(Path(temporary)) as met,
    ):
        refs, state = source.refs(), SourceState(source)
        pace = Pace(progress, len(refs), "samples")
        jobs = (CaptionJob(source=source, image=image, ref=ref) for ref in refs)
        units = (_unit(job, state) for job in jobs)
        made = store.results(prepare, canonical(image), units, configs=(source, image))
        for number, done in enumerate(made):
            chunk = _chunk(done.folder)
            again: list[Skip] = []
            for key, members in _samples(done.folder / _SAMPLES):
                earlier = met.earlier(key, number)
                if earlier is not None:
                    again.append((key, _twice(key, refs[earlier].name, refs[number].name)))
                    continue
                side = is_validation(key, split)
                writers[side].add(key, members)
                counts[side] += 1
            names |= chunk.names
            report.add(chunk.samples - len(again), [*chunk.skipped, *again])
            each = report.converted / pace.next
            pace.step(f"{report.converted} samples", reused=done.reused, each=each)
        report.write(out)
        for folder, writer, count in zip(folders, writers, counts, strict=False):
            if split and not count:
                raise empty_side(folder.name if folder != out else "", report.converted, split)
            CaptionDescription(images=sorted(names), sequences=count).write(folder)
            writer.close()  # last, for it writes the manifest
    found = {"samples": counts[0], "skipped": len(report.skipped)}
    return found | {"validation_samples": counts[1]} if split else found


def _unit(job: CaptionJob, state: SourceState) -> Unit[CaptionJob]:
    ref = job.ref
    return Unit(name=ref.name, work=job, state=lambda: state([ref]), needs=ref.files[0])


def _chunk(folder: Path) -> CaptionChunk:
    found: CaptionChunk = TypeAdapter(CaptionChunk).validate_json((folder / _CHUNK).read_bytes())
    return found


def _samples(tar: Path) -> Iterator[tuple[str, dict[str, bytes]]]:
    named = ((*split_name(name), data) for name, data in tar_files(tar))
    for key, members in groupby(named, key=lambda one: one[0]):
        yield key, {extension: data for _, extension, data in members}
