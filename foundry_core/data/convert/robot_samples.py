"""An episode as it is stored: whole, or as one sample per window (the published layout)."""

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from foundry_core.data.config import ImageConfig, PoseGroup, WindowConfig
from foundry_core.data.contract.statements import DataContract
from foundry_core.data.images import (
    MAX_PIXELS,
    UPRIGHT,
    check_jpeg,
    decode_image,
    encode_jpeg,
    image_format,
    image_size,
    orientation,
    rotate,
    transform,
)
from foundry_core.data.mapping.config import RobotMapping
from foundry_core.data.npy import write_npz
from foundry_core.data.robot.episodes import Episode, UnusableEpisode
from foundry_core.data.robot.windows import cut_windows, image_steps
from foundry_core.data.shards.write import ShardSample
from foundry_core.errors import FoundryError
from foundry_core.files import json_text


@dataclass(frozen=True, kw_only=True)
class RobotSettings:
    """What a recipe asks for; see tasks/convert_robot.py. contract: of what is kept, as stored."""

    contract: DataContract
    groups: tuple[PoseGroup, ...]
    window: WindowConfig
    image_steps: tuple[int, ...]
    image: ImageConfig
    layout: Literal["episode", "sample"]
    keep_failures: bool
    mapping: RobotMapping | None = None

    @property
    def cameras(self) -> tuple[str, ...]:
        return tuple(self.contract.cameras)

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(self.contract.fields)


@dataclass(frozen=True, kw_only=True)
class StoredEpisode(Episode):
    """The chosen part of an episode of L steps.

    lowdim: {field: float64 [L, D]}. images: {camera: L JPEG files}. geometry: the cameras'
    matrices per step, [L, 3, 3] and [L, 4, 4], in the published names. drawn: {camera: (height,
    width)} of its pictures before anything was done to them.
    """

    images: Mapping[str, list[bytes]]
    geometry: Mapping[str, np.ndarray]
    drawn: Mapping[str, tuple[int, int]]

    def image_size(self, camera: str) -> tuple[int, int]:
        """(height, width) of its first image."""
        height, width = decode_image(self.images[camera][0]).shape[:2]
        return height, width


def stored_episode(episode: Episode, settings: RobotSettings) -> StoredEpisode:
    """Keeps the settings' fields and cameras, images brought to their size. Raises UnusableEpisode
    for an image that does not decode."""
    images: dict[str, list[bytes]] = {}
    geometry: dict[str, np.ndarray] = {}
    for camera in settings.cameras:
        intrinsics = episode.intrinsics.get(camera)
        moved = None
        images[camera] = []
        for step, raw in enumerate(episode.images[camera]):
            where = f"{camera} at step {step} of episode {episode.id!r}"
            turn = settings.contract.cameras[camera].rotated
            data, moved = _image(raw, settings.image, turn, intrinsics, where)
            images[camera].append(data)
        if intrinsics is not None:
            for name, matrix in (("original", intrinsics), ("rescaled", moved)):
                tiled = np.broadcast_to(np.asarray(matrix, np.float64), (episode.length, 3, 3))
                geometry[f"{name}_intrinsics.{camera}"] = tiled
        if camera in episode.extrinsics:
            geometry[f"extrinsics.{camera}"] = episode.extrinsics[camera]
    lowdim = {name: np.asarray(episode.lowdim[name], np.float64) for name in settings.fields}
    drawn = {name: _size(episode.images[name][0]) for name in settings.cameras}
    chosen = {"lowdim": lowdim, "images": images, "geometry": geometry, "drawn": drawn}
    return StoredEpisode(**vars(episode) | chosen)


def episode_sample(episode: StoredEpisode) -> ShardSample:
    """(key, members) of the layout "episode"."""
    members = {
        f"{camera}_{step:06d}.jpg": data
        for camera, files in episode.images.items()
        for step, data in enumerate(files)
    }
    metadata = {
        "episode_id": episode.id,
        "task": episode.task,
        "length": episode.length,
        "hz": episode.hz,
        "success": episode.success,
        "camera_names": list(episode.images),
    }
    return episode.id, members | _texts(metadata, episode) | {
        "lowdim.npz": write_npz({**episode.lowdim, **episode.geometry})
    }


def window_samples(
    episode: StoredEpisode,
    settings: RobotSettings,
    steps: np.ndarray,
    windows: Mapping[str, np.ndarray],
) -> Iterator[ShardSample]:
    """(key, members) per window of the layout "sample"; images at `image_steps` around the anchor.

    steps: int64 [N], the anchors. windows: {name: [N, T, ...]}, masks included.
    """
    cut: dict[str, np.ndarray] = dict(windows)
    if episode.geometry:
        cut |= cut_windows(episode.geometry, steps, settings.window)[0]
    shown = image_steps(episode.length, steps, settings.image_steps)
    for number, anchor in enumerate(steps.tolist()):
        # A name from the content's place, so that equal input gives equal bytes (not uuid4).
        key = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{episode.id} {anchor}"))
        members = {
            f"{camera}_t{offset}.jpg": files[step]
            for camera, files in episode.images.items()
            for offset, step in zip(settings.image_steps, shown[number].tolist(), strict=True)
        }
        metadata = _window_metadata(episode, settings.window, anchor) | {
            "image_timesteps": shown[number].tolist()
        }
        members |= _texts(metadata, episode)
        members["lowdim.npz"] = write_npz({name: array[number] for name, array in cut.items()})
        yield key, members


def _window_metadata(
    episode: StoredEpisode, window: WindowConfig, anchor: int
) -> dict[str, object]:
    """The published keys of a window's metadata.json."""
    left = max(0, window.past - anchor)
    right = max(0, anchor + window.future - episode.length + 1)
    return {
        "episode_id": episode.id,
        "sample_id": f"{episode.id}_t{anchor:04d}",
        "anchor_timestep": anchor,
        "anchor_relative_idx": window.past,
        "lowdim_start_timestep": anchor - window.past,
        "lowdim_end_timestep": anchor + window.future,
        "past_padding": left,
        "future_padding": right,
        "is_padded": bool(left or right),
        "camera_names": list(episode.images),
        "original_episode_length": episode.length,
        "task": episode.task,
    }


def _texts(metadata: Mapping[str, object], episode: StoredEpisode) -> dict[str, bytes]:
    return {
        "metadata.json": json_text(metadata).encode(),
        "language_instructions.json": json_text(episode.instructions).encode(),
    }


def _checked(pixels: np.ndarray, where: str) -> np.ndarray:
    """Raw pixels of a reader: uint8 [H, W, 3], and not too many."""
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise FoundryError(
            f"{where} is {pixels.dtype} {list(pixels.shape)}, not uint8 [H, W, 3]",
            "grey or float pictures are no camera of colours: leave it out of `cameras`",
        )
    if not 0 < pixels.shape[0] * pixels.shape[1] <= MAX_PIXELS:
        raise FoundryError(f"{where} has {pixels.shape[0]} x {pixels.shape[1]} pixels", "shrink it")
    return pixels


def _size(raw: bytes | np.ndarray) -> tuple[int, int]:
    """Of an image that was decoded before."""
    if isinstance(raw, bytes):
        return image_size(raw, "image")
    height, width = raw.shape[:2]
    return height, width


def _image(
    raw: bytes | np.ndarray,
    config: ImageConfig,
    turn: int,
    intrinsics: np.ndarray | None,
    where: str,
) -> tuple[bytes, np.ndarray | None]:
    """(JPEG, K). A JPEG that is right already keeps its bytes: decoding it again would cost
    quality. Bytes that are kept are decoded all the same, as far as it takes to trust them."""
    jpeg = raw if isinstance(raw, bytes) and image_format(raw) == "jpg" else None
    try:
        how = orientation(raw) if isinstance(raw, bytes) else UPRIGHT
        if how != UPRIGHT:
            jpeg = None
            if intrinsics is not None:
                raise FoundryError(
                    f"{where} is to be turned (EXIF orientation {how}), and there are intrinsics",
                    "which of the two pictures they are of is not known: turn the pictures",
                )
        if jpeg is not None and config.size is None and not turn:
            check_jpeg(jpeg, where)
            return jpeg, intrinsics
        image = decode_image(raw, where) if isinstance(raw, bytes) else _checked(raw, where)
    except FoundryError as error:
        raise UnusableEpisode(error.message, error.hint) from error
    if turn:
        image, intrinsics = rotate(image, turn, intrinsics)
        jpeg = None
    height, width = image.shape[:2]
    if jpeg is not None and config.size == (height, width):
        return jpeg, intrinsics
    resized, moved = transform(image, config.size or (height, width), config.method, intrinsics)
    return encode_jpeg(resized, config.jpeg_quality), moved
