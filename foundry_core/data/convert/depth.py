"""Depth as it is stored: PNG files of 16 bits, beside the pictures of the same camera and step."""

from collections.abc import Callable

import numpy as np

from foundry_core.config.suggest import nearest
from foundry_core.data.contract.statements import DepthContract
from foundry_core.data.convert.read import counted
from foundry_core.data.images import MAX_PIXELS, encode_depth, rotate, transform_depth
from foundry_core.data.robot.episodes import Episode, UnusableEpisode

_MOST = 65535


def depth_file(episode: Episode, camera: str, meaning: DepthContract) -> Callable[[int], bytes]:
    """Step → file of a camera's depth; UnusableEpisode where it is no depth. UnusableEpisode at
    once where there is none, or not for every step."""
    if camera not in episode.depth:
        raise UnusableEpisode(
            f"episode {episode.id!r} has no depth of camera {camera!r}",
            nearest(camera, episode.depth),
        )
    raw = episode.depth[camera]
    if len(raw) != episode.length:
        raise UnusableEpisode(
            f"episode {episode.id!r}: {len(raw)} depth pictures of {camera!r} for "
            f"{episode.length} steps",
            "every step needs one",
        )

    def made(step: int) -> bytes:
        where = f"depth of {camera} at step {step} of episode {episode.id!r}"
        with counted(where):
            metres = np.asarray(raw[step])
            if metres.ndim != 2 or metres.dtype.kind != "f" or not 0 < metres.size <= MAX_PIXELS:
                raise UnusableEpisode(
                    f"{where} is {metres.dtype} {list(metres.shape)}, not float [H, W]",
                    "leave it out",
                )
            return encode_depth(stored_depth(metres, meaning))

    return made


def stored_depth(metres: np.ndarray, meaning: DepthContract) -> np.ndarray:
    """float [H, W] → uint16 [h, w] in counts. 0 is what is no depth: NaN, infinity, nothing above 0
    by half a count, and what is too far to count; a bound would be a wall that is not there."""
    if meaning.rotated:
        metres, _ = rotate(metres, meaning.rotated)
    if meaning.stored.size is not None and tuple(meaning.stored.size) != metres.shape:
        metres = transform_depth(metres, meaning.stored.size, meaning.stored.method)
    with np.errstate(invalid="ignore", over="ignore"):
        counts = np.rint(metres.astype(np.float64) / meaning.metres)
        valid = (counts > 0) & (counts <= _MOST)
    return np.where(valid, counts, 0).astype(np.uint16)
