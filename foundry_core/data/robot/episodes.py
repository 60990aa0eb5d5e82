"""One demonstration, whatever raw format it came from, and the checks every format shares."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, TypeVar, overload

import numpy as np

from foundry_core.config.suggest import nearest
from foundry_core.data.robot.windows import episode_length
from foundry_core.errors import FoundryError

# An encoded file, or uint8 [H, W, 3].
Picture: TypeAlias = bytes | np.ndarray
P = TypeVar("P", bound=Picture)


class Frames(Sequence[P]):
    """The pictures of one camera, read when they are asked for and not kept. read: step → picture;
    whatever it raises is an UnusableEpisode."""

    def __init__(self, length: int, read: Callable[[int], P]) -> None:
        self._length, self._read = length, read

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, step: int) -> P: ...

    @overload
    def __getitem__(self, step: slice) -> list[P]: ...

    def __getitem__(self, step: int | slice) -> P | list[P]:
        if isinstance(step, slice):
            return [self[one] for one in range(self._length)[step]]
        place = range(self._length)[step]
        try:
            return self._read(place)
        except UnusableEpisode:
            raise
        except Exception as error:
            reason = error.message if isinstance(error, FoundryError) else repr(error)
            raise UnusableEpisode(
                f"the picture of step {place} is not readable: {reason}", "fetch it again"
            ) from error


@dataclass(frozen=True, kw_only=True)
class Episode:
    """L steps at `hz`.

    lowdim: {field: float [L, ...]}, metres and rot6d. images: {camera: L pictures}, which need not
    be in memory: `Frames`. intrinsics: {camera: K [3, 3]}. extrinsics: {camera: [L, 4, 4]}. depth:
    {camera: L times float32 [H, W]}, metres along the camera's axis; what is not above 0 is none.
    weight: [L], how often the window anchored at each step is drawn beside others.
    """

    id: str
    task: str
    hz: float
    success: bool | None
    instructions: Mapping[str, list[str]]
    lowdim: Mapping[str, np.ndarray]
    images: Mapping[str, Sequence[Picture] | np.ndarray]
    intrinsics: Mapping[str, np.ndarray] = field(default_factory=dict)
    extrinsics: Mapping[str, np.ndarray] = field(default_factory=dict)
    depth: Mapping[str, Sequence[np.ndarray]] = field(default_factory=dict)
    weight: np.ndarray | None = None

    @property
    def length(self) -> int:
        return episode_length(self.lowdim)


class UnusableEpisode(FoundryError):
    """This episode's data break a rule; a recipe may tolerate some of them (max_skipped)."""


def check_episode(episode: Episode, cameras: tuple[str, ...], fields: tuple[str, ...]) -> None:
    """Raises UnusableEpisode for absent cameras or fields, unequal lengths, matrices of another
    shape, NaN or infinity."""
    where = f"episode {episode.id!r}"
    for camera in cameras:
        if camera not in episode.images:
            raise UnusableEpisode(
                f"{where} has no camera {camera!r}", nearest(camera, episode.images)
            )
        if len(episode.images[camera]) != episode.length:
            raise UnusableEpisode(
                f"{where}: camera {camera!r} has {len(episode.images[camera])} images for "
                f"{episode.length} steps",
                "every step needs one image of every camera",
            )
        _check_matrices(f"{where}: intrinsics of {camera!r}", episode.intrinsics, camera, (3, 3))
        shape = (episode.length, 4, 4)
        _check_matrices(f"{where}: extrinsics of {camera!r}", episode.extrinsics, camera, shape)
    for name in fields:
        if name not in episode.lowdim:
            raise UnusableEpisode(
                f"{where} lacks the field {name!r}", nearest(name, episode.lowdim)
            )
        values = episode.lowdim[name]
        bad = ~np.isfinite(values).reshape(len(values), -1).all(axis=1)
        if bad.any():
            raise UnusableEpisode(
                f"{where}: field {name!r} is not finite at step {int(np.argmax(bad))}",
                "mend or remove the episode, or raise max_skipped",
            )


def _check_matrices(
    where: str, held: Mapping[str, np.ndarray], camera: str, shape: tuple[int, ...]
) -> None:
    found = held.get(camera)
    if found is None:
        return
    if found.shape != shape or found.dtype.kind not in "fiu":
        raise UnusableEpisode(
            f"{where} are {found.dtype} {list(found.shape)}, not numbers {list(shape)}", "mend them"
        )
    bad = ~np.isfinite(found)
    if bad.any():
        step = f" at step {int(np.argwhere(bad)[0][0])}" if len(shape) == 3 else ""
        raise UnusableEpisode(f"{where} are not finite{step}", "mend or remove the episode")
