"""Captioned images → caption shards. Workers check and resize; the shards are written in order."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from foundry_core.data.config import ImageConfig
from foundry_core.data.convert.read import read_captioned
from foundry_core.data.convert.report import Report, Skip
from foundry_core.data.images import (
    UPRIGHT,
    decode_image,
    encode_jpeg,
    image_format,
    orientation,
    transform,
)
from foundry_core.data.shards.description import CaptionDescription
from foundry_core.data.shards.write import ShardFolderWriter, ShardSample, key_fault
from foundry_core.data.sources.base import Broken, Captioned, CaptionFormat, SourceRef
from foundry_core.errors import FoundryError, printable
from foundry_core.files import encodable, json_line
from foundry_core.parallel import ray_map, ray_session


@dataclass(frozen=True, kw_only=True)
class CaptionChunk:
    """What became of a piece. names: of all its images."""

    samples: list[ShardSample]
    names: set[str]
    skipped: list[Skip]


def prepare(source: CaptionFormat, image: ImageConfig, ref: SourceRef) -> CaptionChunk:
    """Runs in a worker: every image is decoded once, so that no broken one reaches a shard."""
    chunk = CaptionChunk(samples=[], names=set(), skipped=[])
    for item in read_captioned(source, ref):
        if isinstance(item, Broken):
            chunk.skipped.append((item.id, item.reason))
        else:
            _add(chunk, item, image)
    return chunk


def _add(chunk: CaptionChunk, item: Captioned, image: ImageConfig) -> None:
    try:
        if fault := key_fault(item.id):
            raise FoundryError(f"sample {item.id!r} cannot be called so: {fault}")
        chunk.samples.append((item.id, _members(item, image)))
        chunk.names.update(item.images)
    except Exception as error:
        chunk.skipped.append((printable(item.id), _reason(error)))


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
) -> dict[str, int]:
    """Writes shards, manifest, dataset.json and report.json; returns counts."""
    refs, work = source.refs(), partial(prepare, source, image)
    report = Report("captioned images", max_skipped)
    writer = ShardFolderWriter(out, samples_per_shard)
    names: set[str] = set()
    with ray_session(workers):
        for done, chunk in enumerate(ray_map(work, refs, workers=workers), start=1):
            for key, members in chunk.samples:
                writer.add(key, members)
            names |= chunk.names
            report.add(len(chunk.samples), chunk.skipped)
            progress(done, len(refs), f"{report.converted} samples")
    writer.close()
    report.write(out)
    CaptionDescription(images=sorted(names), sequences=report.converted).write(out)
    return {"samples": report.converted, "skipped": len(report.skipped)}
