"""Replay buffers of Diffusion Policy and UMI: Zarr arrays of all steps, `meta/episode_ends`."""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from foundry_core.data.contract.fields import FieldContract
from foundry_core.data.contract.statements import DataContract
from foundry_core.data.sources.base import Reads, SourceRef
from foundry_core.data.sources.robot.recorded import Recorded, episode_id, natural
from foundry_core.errors import FoundryError
from foundry_core.identity.sources import source_files

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from foundry_core.data.robot.episodes import Episode, Frames
    from foundry_core.data.sources.robot.zarr_v2 import Array

_ENDS = "meta/episode_ends"


class ZarrReplay(Recorded):
    """A replay buffer as a .zarr folder or a .zarr.zip, or a folder of them. A ref is a run of rows
    of one buffer."""

    format: Literal["zarr_replay"] = "zarr_replay"
    hz: float = Field(gt=0, description="control rate: buffers hold none (Push-T 10, UMI 60)")

    @classmethod
    def matches(cls, path: Path) -> bool:
        if path.name.endswith((".zarr", ".zarr.zip")):
            return path.exists()
        return next(path.glob("*.zarr*"), None) is not None

    def contract(self) -> DataContract:
        position = FieldContract(dims=3, quantity="position", unit="m")
        rotation = FieldContract(dims=3, quantity="rotation", form="axis_angle", unit="rad")
        width = FieldContract(dims=1, quantity="gripper", unit="m")
        fields = {
            f"{robot}_{name}": meaning
            for robot in ("robot0", "robot1")
            for name, meaning in (
                ("eef_pos", position),
                ("eef_rot_axis_angle", rotation),
                ("gripper_width", width),
            )
        }
        return DataContract(hz=self.hz, fields=fields)

    def episodes(self) -> list[SourceRef]:
        """By buffer and row; a buffer whose `episode_ends` cannot be read is one ref (stop -1)."""
        from foundry_core.data.robot.episodes import UnusableEpisode

        refs: list[SourceRef] = []
        for name, path in self._buffers():
            try:
                ends = _episode_ends(path)
            except UnusableEpisode:
                refs.append(SourceRef(name=name or self.root.name, files=(str(path),)))
                continue
            refs += [
                SourceRef(
                    name=f"{name}/episode_{number}".lstrip("/"),
                    files=(str(path),),
                    start=start,
                    stop=stop,
                )
                for number, (start, stop) in enumerate(zip([0, *ends], ends, strict=False))
            ]
        return refs

    def reads(self, ref: SourceRef) -> Reads:
        return Reads(ref.files)

    def read_episode(self, ref: SourceRef) -> "Episode":
        """Fields and cameras by the names of their arrays."""
        from foundry_core.data.robot.episodes import Episode, UnusableEpisode
        from foundry_core.data.sources.robot.steps import (
            MAX_FIELD,
            check_bytes,
            check_steps,
            is_depth,
            is_lowdim,
            is_pictures,
            lowdim,
            readable,
        )
        from foundry_core.data.sources.robot.zarr_v2 import open_array, open_store

        if ref.stop == -1:
            _episode_ends(ref.path)  # raises why its episodes are not known
        where = f"{ref.path}: {ref.name.rpartition('/')[2]}"
        length = ref.stop - ref.start
        if length < 0:
            raise UnusableEpisode(f"{where} ends before it begins: {_ENDS}", "mend the buffer")
        store = open_store(ref.path)
        with readable(f"{where}: data"):
            names = [name for name in store.names("data") if not name.startswith(".")]
        fields: dict[str, np.ndarray] = {}
        images: dict[str, Frames] = {}
        depth: dict[str, Frames[np.ndarray]] = {}
        for name in names:
            array = open_array(store, f"data/{name}", where)
            if array.shape[0] < ref.stop:
                raise UnusableEpisode(
                    f"{array.where} has {array.shape[0]} rows; {_ENDS} ends at {ref.stop}",
                    "fetch the buffer again",
                )
            if is_pictures(array.shape, array.dtype):
                images[name] = _frames(array, ref.start, length)
            elif is_depth(name, array.shape, array.dtype):
                depth[name] = _depth(array, ref.start, length, self.depth_unit)
            elif is_lowdim(array.shape):
                check_bytes((length, *array.shape[1:]), array.dtype, MAX_FIELD, array.where)
                fields[name] = lowdim(array.rows(ref.start, ref.stop))
        check_steps(where, fields, images)
        return Episode(
            id=episode_id(ref.name.replace(".zarr.zip", "").replace(".zarr", "")),
            task=self.instruction or "replay",
            hz=self.hz,
            success=None,
            instructions=self.words(()),
            lowdim=fields,
            images=images,
            depth=depth,
        )

    def _buffers(self) -> list[tuple[str, Path]]:
        """(name, path); the name is "" where the source is one folder."""
        if self.root.is_file():
            return [(self.root.name, self.root)]
        names = source_files(self.root) if self.root.is_dir() else []
        zips = [name for name in names if name.endswith(".zarr.zip")]
        ends = f"{_ENDS}/.zarray"
        folders = [name.removesuffix(ends).rstrip("/") for name in names if _is_below(name, ends)]
        if not zips and not folders:
            raise FoundryError(
                f"{str(self.root)!r} holds no {_ENDS} of Zarr format 2, and no .zarr.zip",
                "point it at a replay buffer, or at a folder of them",
            )
        return [(name, self.root / name) for name in sorted(zips + folders, key=natural)]


def _is_below(name: str, ends: str) -> bool:
    return name == ends or name.endswith(f"/{ends}")


def _episode_ends(path: Path) -> list[int]:
    """Raises UnusableEpisode where the buffer has none."""
    from foundry_core.data.robot.episodes import UnusableEpisode
    from foundry_core.data.sources.robot.steps import MAX_FIELD, check_bytes
    from foundry_core.data.sources.robot.zarr_v2 import open_array, open_store

    array = open_array(open_store(path), _ENDS, str(path))
    check_bytes(array.shape, array.dtype, MAX_FIELD, array.where)
    ends = array.rows(0, array.shape[0])
    if ends.ndim != 1 or ends.dtype.kind not in "iu" or not len(ends) or ends.min() < 0:
        raise UnusableEpisode(f"{array.where} is no list of rows", "mend the buffer")
    return [int(end) for end in ends]


def _frames(array: "Array", start: int, length: int) -> "Frames":
    from foundry_core.data.sources.robot.steps import picture

    return _rows(array, start, length, lambda row, where: picture(row, where).copy())


def _depth(array: "Array", start: int, length: int, unit: str | None) -> "Frames[np.ndarray]":
    from foundry_core.data.sources.robot.steps import metres

    return _rows(array, start, length, lambda row, _: metres(row, unit))


def _rows(
    array: "Array",
    start: int,
    length: int,
    prepare: "Callable[[np.ndarray, str], np.ndarray]",
) -> "Frames":
    """Neighbouring steps often lie in one chunk: the last is kept. prepare: (row, where)."""
    from foundry_core.data.robot.episodes import Frames
    from foundry_core.data.sources.robot.steps import MAX_PICTURE, check_bytes

    check_bytes(array.shape[1:], array.dtype, MAX_PICTURE, array.where)
    block = lru_cache(maxsize=1)(array.block)

    def read(step: int) -> "np.ndarray":
        number, row = divmod(start + step, array.chunks[0])
        return prepare(block(number)[row], f"{array.where} at step {step}")

    return Frames(length, read)


FORMAT = ZarrReplay
