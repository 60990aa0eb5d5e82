"""Demonstrations → robot shards with statistics.

One job is one shard: a fixed run of consecutive episodes. A worker reads them, writes the shard's
tar and returns its part of the statistics; the parts are merged in shard order. So bytes depend on
source and recipe alone, and memory is one episode plus one shard's statistics per worker.
"""

import io
import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from foundry_core.data.config import ImageConfig, PoseGroup, WindowConfig
from foundry_core.data.convert.report import Report, Skip, write_json
from foundry_core.data.images import decode_image, encode_jpeg, image_format, transform
from foundry_core.data.robot.episodes import Episode, UnusableEpisode, check_episode, write_npz
from foundry_core.data.robot.poses import add_relative_fields
from foundry_core.data.robot.windows import anchors, cut_windows, image_steps
from foundry_core.data.shards.write import (
    Sample,
    ShardInfo,
    close_ranks,
    shard_name,
    write_manifest,
    write_shard,
)
from foundry_core.data.sources.config import RobotSource
from foundry_core.data.sources.robot import episode_refs, read_episode
from foundry_core.data.statistics.builder import StatisticsBuilder
from foundry_core.data.statistics.dataset import DatasetStatistics
from foundry_core.data.statistics.merge import merge_statistics
from foundry_core.errors import FoundryError
from foundry_core.parallel import ray_map, ray_session


@dataclass(frozen=True, kw_only=True)
class RobotSettings:
    """What a recipe asks for; see tasks/convert_robot.py for each field's meaning."""

    source: RobotSource
    cameras: tuple[str, ...]
    fields: tuple[str, ...]
    groups: tuple[PoseGroup, ...]
    window: WindowConfig
    image_steps: tuple[int, ...]
    image: ImageConfig
    layout: Literal["episode", "sample"]
    keep_failures: bool


@dataclass(frozen=True, kw_only=True)
class RobotJob:
    settings: RobotSettings
    shard: int
    refs: tuple[Path, ...]
    out: Path


@dataclass(kw_only=True)
class RobotPart:
    """One shard as its worker left it."""

    shard: ShardInfo
    statistics: DatasetStatistics | None = None
    ids: list[str] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    tasks: dict[str, int] = field(default_factory=dict)
    windows: int = 0
    cameras: dict[str, tuple[int, int]] = field(default_factory=dict)
    dims: dict[str, int] = field(default_factory=dict)
    hz: set[float] = field(default_factory=set)
    failures: int = 0
    skipped: list[Skip] = field(default_factory=list)


def convert_shard(job: RobotJob) -> RobotPart:
    """Runs in a worker."""
    part = RobotPart(shard=ShardInfo(shard=shard_name(job.shard), num_sequences=0))
    builder = StatisticsBuilder(past=job.settings.window.past)
    path = job.out / f"{shard_name(job.shard)}.tar"
    part.shard = write_shard(path, _samples(job, part, builder))
    if part.windows:
        part.statistics = builder.finish()
    return part


def _samples(job: RobotJob, part: RobotPart, builder: StatisticsBuilder) -> Iterator[Sample]:
    settings = job.settings
    for ref in job.refs:
        try:
            episode = read_episode(settings.source, ref)
            check_episode(episode, settings.cameras, settings.fields)
            if episode.success is False and not settings.keep_failures:
                part.failures += 1
                continue
            images, geometry = _images(episode, settings)
        except UnusableEpisode as error:
            part.skipped.append((str(ref.relative_to(settings.source.path)), str(error)))
            continue
        lowdim = {name: np.asarray(episode.lowdim[name], np.float64) for name in settings.fields}
        steps = anchors(episode.length, settings.window)
        cut, past, future = cut_windows(lowdim, steps, settings.window)
        windows = add_relative_fields(cut, settings.window.past, settings.groups)
        if len(steps):
            builder.add(episode.id, windows, past | future)
        _note(part, episode, lowdim, images, len(steps))
        if settings.layout == "episode":
            yield episode.id, _episode_members(episode, lowdim | geometry, images)
        else:
            masks = {"past_mask": past, "future_mask": future}
            shaped, _, _ = cut_windows(geometry, steps, settings.window) if geometry else ({}, 0, 0)
            yield from _window_samples(episode, settings, steps, windows | masks | shaped, images)


def _note(
    part: RobotPart,
    episode: Episode,
    lowdim: Mapping[str, np.ndarray],
    images: Mapping[str, list[bytes]],
    windows: int,
) -> None:
    part.ids.append(episode.id)
    part.lengths.append(episode.length)
    part.tasks[episode.task] = part.tasks.get(episode.task, 0) + 1
    part.windows += windows
    part.hz.add(episode.hz)
    part.dims |= {name: int(values.shape[1]) for name, values in lowdim.items()}
    for camera, files in images.items():
        if camera not in part.cameras:
            part.cameras[camera] = decode_image(files[0]).shape[:2]


def _images(
    episode: Episode, settings: RobotSettings
) -> tuple[dict[str, list[bytes]], dict[str, np.ndarray]]:
    """JPEG files per camera, and camera geometry as per-step arrays in the published names."""
    images: dict[str, list[bytes]] = {}
    geometry: dict[str, np.ndarray] = {}
    for camera in settings.cameras:
        intrinsics = episode.intrinsics.get(camera)
        files = []
        moved = None
        for step, raw in enumerate(episode.images[camera]):
            where = f"{camera} at step {step} of episode {episode.id!r}"
            data, moved = _image(raw, settings.image, intrinsics, where)
            files.append(data)
        images[camera] = files
        if intrinsics is not None:
            for name, matrix in (("original", intrinsics), ("rescaled", moved)):
                tiled = np.broadcast_to(np.asarray(matrix, np.float64), (len(files), 3, 3))
                geometry[f"{name}_intrinsics.{camera}"] = tiled
        if camera in episode.extrinsics:
            geometry[f"extrinsics.{camera}"] = episode.extrinsics[camera]
    return images, geometry


def _image(
    raw: bytes | np.ndarray, config: ImageConfig, intrinsics: np.ndarray | None, where: str
) -> tuple[bytes, np.ndarray | None]:
    """A JPEG that is right already keeps its bytes: decoding it again would cost quality."""
    jpeg = isinstance(raw, bytes) and image_format(raw) == "jpg"
    if jpeg and config.size is None:
        return raw, intrinsics
    try:
        image = decode_image(raw, where) if isinstance(raw, bytes) else raw
    except FoundryError as error:
        raise UnusableEpisode(error.message, error.hint) from error
    if jpeg and image.shape[:2] == tuple(config.size or ()):
        return raw, intrinsics
    size = config.size or image.shape[:2]
    resized, moved = transform(image, size, config.method, intrinsics)
    return encode_jpeg(resized, config.jpeg_quality), moved


def _episode_members(
    episode: Episode, arrays: Mapping[str, np.ndarray], images: Mapping[str, list[bytes]]
) -> dict[str, bytes]:
    members = {
        f"{camera}_{step:06d}.jpg": data
        for camera, files in images.items()
        for step, data in enumerate(files)
    }
    metadata = {
        "episode_id": episode.id,
        "task": episode.task,
        "length": episode.length,
        "hz": episode.hz,
        "success": episode.success,
        "camera_names": list(images),
    }
    return members | {
        "lowdim.npz": write_npz(arrays),
        "metadata.json": _json(metadata),
        "language_instructions.json": _json(episode.instructions),
    }


def _window_samples(
    episode: Episode,
    settings: RobotSettings,
    steps: np.ndarray,
    windows: Mapping[str, np.ndarray],
    images: Mapping[str, list[bytes]],
) -> Iterator[Sample]:
    """The published layout: one sample per window, images at `image_steps` around the anchor."""
    window, length = settings.window, episode.length
    shown = image_steps(length, steps, settings.image_steps)
    for number, anchor in enumerate(steps.tolist()):
        # A name from the content's place, so that equal input gives equal bytes (not uuid4).
        key = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{episode.id} {anchor}"))
        members = {
            f"{camera}_t{offset}.jpg": files[step]
            for camera, files in images.items()
            for offset, step in zip(settings.image_steps, shown[number].tolist(), strict=True)
        }
        left = max(0, window.past - anchor)
        right = max(0, anchor + window.future - length + 1)
        metadata = {
            "episode_id": episode.id,
            "sample_id": f"{episode.id}_t{anchor:04d}",
            "anchor_timestep": anchor,
            "anchor_relative_idx": window.past,
            "image_timesteps": shown[number].tolist(),
            "lowdim_start_timestep": anchor - window.past,
            "lowdim_end_timestep": anchor + window.future,
            "past_padding": left,
            "future_padding": right,
            "is_padded": bool(left or right),
            "camera_names": list(images),
            "original_episode_length": length,
            "task": episode.task,
        }
        members["lowdim.npz"] = write_npz({name: array[number] for name, array in windows.items()})
        members["metadata.json"] = _json(metadata)
        members["language_instructions.json"] = _json(episode.instructions)
        yield key, members


def convert_robot(
    settings: RobotSettings,
    out: Path,
    *,
    episodes_per_shard: int,
    max_skipped: int,
    workers: int,
    progress: Callable[..., None],
) -> dict[str, Any]:
    """Writes shards, manifest, dataset.json, stats.json and report.json; returns counts."""
    refs = episode_refs(settings.source)
    groups = [refs[i : i + episodes_per_shard] for i in range(0, len(refs), episodes_per_shard)]
    jobs = [
        RobotJob(settings=settings, shard=number, refs=tuple(group), out=out)
        for number, group in enumerate(groups)
    ]
    report = Report("episodes", max_skipped)
    parts: list[RobotPart] = []
    with ray_session(workers):
        for part in ray_map(convert_shard, jobs, workers=workers):
            parts.append(part)
            report.add(len(part.ids), part.skipped)
            report.leave_out("not successful", part.failures)
            progress(len(parts), len(jobs), f"{report.converted} episodes")
    report.write(out)
    _check_unique([name for part in parts for name in part.ids])
    write_manifest(out, close_ranks(out, [part.shard for part in parts]))
    statistics = [part.statistics for part in parts if part.statistics is not None]
    if not statistics:
        raise FoundryError(
            f"no episode is long enough for a window of {settings.window.length} steps",
            "shorten the window, or allow more padding",
        )
    merge_statistics(statistics).collapse().save(out / "stats.json")
    dataset = _describe(settings, parts)
    write_json(out / "dataset.json", dataset)
    return {
        "episodes": report.converted,
        "windows": dataset["windows"],
        "skipped": len(report.skipped),
    }


def _describe(settings: RobotSettings, parts: list[RobotPart]) -> dict[str, Any]:
    hz = {rate for part in parts for rate in part.hz}
    if len(hz) > 1:
        raise FoundryError(
            f"episodes of one dataset have different rates {sorted(hz)} Hz",
            "convert them as separate datasets",
        )
    cameras: dict[str, tuple[int, int]] = {}
    tasks: dict[str, int] = {}
    for part in parts:
        cameras |= part.cameras
        for task, count in part.tasks.items():
            tasks[task] = tasks.get(task, 0) + count
    return {
        "format": "foundry-robot",
        "version": 1,
        "layout": settings.layout,
        "hz": hz.pop(),
        "cameras": {name: {"height": h, "width": w} for name, (h, w) in cameras.items()},
        "fields": {name: dim for part in parts for name, dim in part.dims.items()},
        "relative": [group.model_dump(mode="json") for group in settings.groups],
        "window": settings.window.model_dump(mode="json"),
        "image_steps": list(settings.image_steps),
        "tasks": tasks,
        "episodes": sum(len(part.ids) for part in parts),
        "lengths": [length for part in parts for length in part.lengths],
        "windows": sum(part.windows for part in parts),
    }


def _check_unique(ids: list[str]) -> None:
    seen: set[str] = set()
    for name in ids:
        if name in seen:
            raise FoundryError(
                f"two episodes have the id {name!r}", "rename one: ids identify samples"
            )
        seen.add(name)


def _json(value: Any) -> bytes:
    buffer = io.StringIO()
    json.dump(value, buffer, sort_keys=True, indent=2, ensure_ascii=False)
    return f"{buffer.getvalue()}\n".encode()
