"""Many demonstrations in one HDF5 file, `data/demo_<n>`: what robomimic and LIBERO share."""

import math
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from foundry_core.config.suggest import nearest
from foundry_core.data.contract.fields import FieldContract
from foundry_core.data.sources.base import Reads, SourceRef
from foundry_core.data.sources.robot.recorded import Recorded, episode_id, natural
from foundry_core.errors import FoundryError

if TYPE_CHECKING:
    import h5py
    import numpy as np

    from foundry_core.data.robot.episodes import Episode, Frames

METRES = FieldContract(dims=3, quantity="position", unit="m")


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a file says of a demonstration beside its arrays."""

    task: str
    instructions: Iterable[str] = ()
    success: bool | None = None


class DemoFiles(Recorded):
    """HDF5 files of demonstrations, one file or a folder of them."""

    bookkeeping: ClassVar[Mapping[str, str]] = {
        "dones": "marks the episode's last steps",
        "rewards": "a reward",
    }
    mask: str = Field("", description="only the demonstrations that `mask/<this>` lists")

    def episodes(self) -> list[SourceRef]:
        """A ref is one demonstration of one file, by file and number; a whole file (stop -1) where
        that cannot be listed."""
        from foundry_core.data.robot.episodes import UnusableEpisode
        from foundry_core.data.sources.robot.hdf5 import ENDINGS

        refs: list[SourceRef] = []
        for name, path in self.files(ENDINGS):
            try:
                demos = demo_names(path, self.mask)
            except UnusableEpisode:
                refs.append(SourceRef(name=name, files=(str(path),)))
                continue
            refs += [
                SourceRef(name=f"{name}/{demo}", files=(str(path),), start=place, stop=place + 1)
                for place, demo in enumerate(demos)
            ]
        return refs

    def reads(self, ref: SourceRef) -> Reads:
        return Reads(ref.files)

    def read_episode(self, ref: SourceRef) -> "Episode":
        """Fields by their paths below the demonstration (`actions`, `obs/...`), cameras by their
        names in `obs`."""
        from foundry_core.data.robot.episodes import Episode
        from foundry_core.data.sources.robot import hdf5

        if ref.stop == -1:
            demo_names(ref.path, self.mask)  # raises why its demonstrations are not known
        file, _, name = ref.name.rpartition("/")
        data = hdf5.child(hdf5.open_file(ref.path), "data")
        demo = hdf5.child(data, name)
        lowdim, images, depth = self._arrays(demo)
        kwargs = hdf5.json_attribute(data, "env_args").get("env_kwargs")
        facts = self.facts(PurePosixPath(file), data, demo, lowdim)
        return Episode(
            id=episode_id(f"{PurePosixPath(file).with_suffix('')}_{name}"),
            task=facts.task,
            hz=self.rate(_positive(kwargs, "control_freq")),
            success=facts.success,
            instructions=self.words(facts.instructions),
            lowdim=lowdim,
            images=images,
            depth=depth,
        )

    @abstractmethod
    def facts(
        self,
        file: PurePosixPath,
        data: "h5py.Group",
        demo: "h5py.Group",
        lowdim: "dict[str, np.ndarray]",
    ) -> Facts: ...

    def flips(self, data: "h5py.Group") -> bool:
        """Whether pictures come upside down and are to be turned."""
        return False

    def _arrays(
        self, demo: "h5py.Group"
    ) -> "tuple[dict[str, np.ndarray], dict[str, Frames], dict[str, Frames[np.ndarray]]]":
        from foundry_core.data.sources.robot import hdf5
        from foundry_core.data.sources.robot.steps import (
            check_steps,
            is_depth,
            is_lowdim,
            is_pictures,
        )

        step = -1 if self.flips(demo.parent) else 1
        lowdim: dict[str, np.ndarray] = {}
        images: dict[str, Frames] = {}
        depth: dict[str, Frames[np.ndarray]] = {}
        for path, dataset in hdf5.datasets(demo, skip=("next_obs",)):
            if is_pictures(dataset.shape, dataset.dtype):
                camera = path.removeprefix("obs/")
                images[camera] = hdf5.frames(dataset, lambda pixels: pixels[::step])
            elif is_depth(path, dataset.shape, dataset.dtype):
                name = path.removeprefix("obs/")
                depth[name] = hdf5.depth_frames(dataset, self.depth_unit, lambda one: one[::step])
            elif is_lowdim(dataset.shape):
                lowdim[path] = hdf5.field_values(dataset)
        check_steps(f"{demo.file.filename}: {demo.name}", lowdim, images)
        return lowdim, images, depth


def demo_names(path: Path, mask: str) -> list[str]:
    """The demonstrations of a file by number. Raises UnusableEpisode for a file that holds none,
    FoundryError for a mask that it lacks."""
    from foundry_core.data.robot.episodes import UnusableEpisode
    from foundry_core.data.sources.robot import hdf5
    from foundry_core.data.sources.robot.steps import MAX_FIELD, readable

    file = hdf5.open_file(path)
    if not mask:
        names = hdf5.names(hdf5.child(file, "data"))
        if not names:
            raise UnusableEpisode(f"{path} holds no demonstrations", "remove it")
        return sorted(names, key=natural)
    masks = hdf5.child(file, "mask") if hdf5.has(file, "mask") else {}
    if mask not in masks:
        raise FoundryError(f"{path} has no mask {mask!r}", nearest(mask, masks))
    listed = hdf5.child(masks, mask)
    with readable(f"{path}: mask/{mask}"):
        if listed.dtype.kind != "S" or listed.size * listed.dtype.itemsize > MAX_FIELD:
            raise UnusableEpisode(f"{path}: mask/{mask} is no list of names", "mend it")
        return sorted((name.decode() for name in listed[()].reshape(-1)), key=natural)


def _positive(values: Any, name: str) -> float | None:
    value = values.get(name) if isinstance(values, dict) else None
    return float(value) if isinstance(value, int | float) and 0 < value < math.inf else None
