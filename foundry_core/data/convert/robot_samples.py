"""An episode as it is stored: whole, or as one sample per window (the published layout)."""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np

from foundry_core.data.config import (
    ImageConfig,
    PoseGroup,
    Runs,
    StillConfig,
    WeightRule,
    WindowConfig,
)
from foundry_core.data.contract.statements import DataContract
from foundry_core.data.convert.depth import depth_file
from foundry_core.data.convert.doubts import Numbers
from foundry_core.data.convert.paraphrases import Paraphrases, paraphrased
from foundry_core.data.convert.pictures import Stored
from foundry_core.data.convert.read import counted
from foundry_core.data.convert.still import still_runs
from foundry_core.data.convert.weights import WeightRuns, runs_of, step_weights
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
from foundry_core.data.robot.windows import anchors, cut_windows, image_steps
from foundry_core.data.shards.description import depth_member
from foundry_core.data.shards.write import Member, ShardSample
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
    still: StillConfig | None = None
    paraphrases: Paraphrases = field(default_factory=dict)
    weights: tuple[WeightRule, ...] = ()

    @property
    def weighted(self) -> bool:
        """Whether windows have weights."""
        return bool(self.weights or (self.mapping and self.mapping.weight))

    @property
    def cameras(self) -> tuple[str, ...]:
        return tuple(self.contract.cameras)

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(self.contract.fields)


@dataclass(frozen=True, kw_only=True)
class StoredEpisode(Episode):
    """The chosen part of an episode of L steps.

    lowdim: {field: float64 [L, D]}. images: {camera: L JPEG files, made when they are asked for, or
    UnusableEpisode}. deep: {camera: L PNG files of depth}, likewise. geometry: the cameras'
    matrices per step, [L, 3, 3] and [L, 4, 4], in the published names. drawn: {camera: (height,
    width)} of its pictures before anything was done to them. left_out: runs of steps that are no
    anchors, null where no filter was asked for. weight: of each step, null where none was asked
    for. numbers: what may be doubted of them.
    """

    images: Mapping[str, Sequence[bytes]]
    geometry: Mapping[str, np.ndarray]
    drawn: Mapping[str, tuple[int, int]]
    deep: Mapping[str, Sequence[bytes]] = field(default_factory=dict)
    left_out: Runs | None = None
    numbers: Numbers = field(default_factory=Numbers)

    def anchors(self, window: WindowConfig) -> np.ndarray:
        """Steps that have a window, int64 [N]."""
        return anchors(self.length, window, self.left_out or ())

    def weights(self, window: WindowConfig) -> WeightRuns | None:
        """Of its windows."""
        return None if self.weight is None else runs_of(self.weight[self.anchors(window)])

    def image_size(self, camera: str) -> tuple[int, int]:
        """(height, width) of its first image."""
        height, width = decode_image(self.images[camera][0]).shape[:2]
        return height, width


def stored_episode(episode: Episode, settings: RobotSettings, source: str = "") -> StoredEpisode:
    """Keeps the settings' fields and cameras, images brought to their size. source: the episode's
    name there. Raises UnusableEpisode where the first image of a camera does not decode, or a
    weight is none."""
    images: dict[str, Sequence[bytes]] = {}
    geometry: dict[str, np.ndarray] = {}
    drawn: dict[str, tuple[int, int]] = {}
    for camera in settings.cameras:
        pictures = _Pictures(episode, camera, settings)
        images[camera] = Stored(episode.length, pictures.file, _reach(settings))
        images[camera][0]
        drawn[camera] = pictures.drawn
        intrinsics = episode.intrinsics.get(camera)
        if intrinsics is not None:
            for name, matrix in (("original", intrinsics), ("rescaled", pictures.moved)):
                tiled = np.broadcast_to(np.asarray(matrix, np.float64), (episode.length, 3, 3))
                geometry[f"{name}_intrinsics.{camera}"] = tiled
        if camera in episode.extrinsics:
            geometry[f"extrinsics.{camera}"] = episode.extrinsics[camera]
    lowdim = {name: np.asarray(episode.lowdim[name], np.float64) for name in settings.fields}
    chosen = {"lowdim": lowdim, "images": images, "geometry": geometry, "drawn": drawn}
    chosen["deep"] = {
        name: Stored(episode.length, depth_file(episode, name, meaning), _reach(settings))
        for name, meaning in settings.contract.depth.items()
    }
    if settings.paraphrases:
        words = paraphrased(episode.task, episode.instructions, settings.paraphrases)
        chosen["instructions"] = words
    if settings.still:
        runs = still_runs(lowdim, settings.contract.fields, settings.window, settings.still)
        chosen["left_out"] = runs
    chosen["weight"] = step_weights(episode, source, settings.weights)
    return StoredEpisode(**vars(episode) | chosen)


class _Pictures:
    """Raw pictures of a camera into stored ones. drawn, moved: of the last one, its size before and
    K after."""

    def __init__(self, episode: Episode, camera: str, settings: RobotSettings) -> None:
        self._raw, self._config = episode.images[camera], settings.image
        self._turn = settings.contract.cameras[camera].rotated
        self._intrinsics = episode.intrinsics.get(camera)
        self._where = f"{camera} at step {{}} of episode {episode.id!r}"
        self.drawn = (0, 0)
        self.moved: np.ndarray | None = None

    def file(self, step: int) -> bytes:
        where = self._where.format(step)
        with counted(where):
            raw = self._raw[step]
            data, self.moved = _image(raw, self._config, self._turn, self._intrinsics, where)
            self.drawn = _size(raw)
        return data


def _reach(settings: RobotSettings) -> int:
    """Steps between the first and the last picture of a sample."""
    if settings.layout == "episode":
        return 0
    return max(settings.image_steps) - min(settings.image_steps)


def episode_sample(episode: StoredEpisode, window: WindowConfig) -> ShardSample:
    """(key, members) of the layout "episode"."""
    members: dict[str, Member] = {
        f"{camera}_{step:06d}.jpg": partial(files.__getitem__, step)
        for camera, files in episode.images.items()
        for step in range(len(files))
    }
    for camera, deep in episode.deep.items():
        for step in range(len(deep)):
            members[depth_member(f"{camera}_{step:06d}")] = partial(deep.__getitem__, step)
    metadata = {
        "episode_id": episode.id,
        "task": episode.task,
        "length": episode.length,
        "hz": episode.hz,
        "success": episode.success,
        "camera_names": list(episode.images),
    }
    if episode.left_out is not None:
        metadata["left_out"] = [list(run) for run in episode.left_out]
    weights = episode.weights(window)
    if weights is not None:
        metadata["weights"] = [list(run) for run in weights]
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
        members |= {
            depth_member(f"{camera}_t{offset}"): files[step]
            for camera, files in episode.deep.items()
            for offset, step in zip(settings.image_steps, shown[number].tolist(), strict=True)
        }
        metadata = _window_metadata(episode, settings.window, anchor) | {
            "image_timesteps": shown[number].tolist()
        }
        if episode.weight is not None:
            metadata["weight"] = float(episode.weight[anchor])
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
