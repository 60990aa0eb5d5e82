"""ACT's and ALOHA's HDF5: one `episode_<n>.hdf5` per episode, raw pictures or padded JPEG files."""

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from foundry_core.data.sources.base import Reads, SourceRef
from foundry_core.data.sources.robot.recorded import Recorded, episode_id

if TYPE_CHECKING:
    import numpy as np

    from foundry_core.data.robot.episodes import Episode, Frames, Picture

_IMAGES = "observations/images/"


class Aloha(Recorded):
    """ALOHA HDF5, ACT's simulation and Mobile ALOHA too. A ref is one file.

    The files hold neither rate (50 Hz in their code) nor instruction. channels: "bgr" where the
    recording took its cameras' pictures for RGB and they were not, or stored RGB through OpenCV.
    """

    format: Literal["aloha"] = "aloha"
    hz: float = Field(gt=0, description="control rate; 50 in ALOHA's own code")
    channels: Literal["rgb", "bgr"] = Field(
        "rgb", description="order in which stored pictures show their colours"
    )

    @classmethod
    def matches(cls, path: Path) -> bool:
        from foundry_core.data.sources.robot.hdf5 import looks_like

        return looks_like(path, lambda f: "observations/qpos" in f and "action" in f)

    def episodes(self) -> list[SourceRef]:
        from foundry_core.data.sources.robot.hdf5 import ENDINGS

        return [SourceRef(name=n, files=(str(path),)) for n, path in self.files(ENDINGS)]

    def reads(self, ref: SourceRef) -> Reads:
        return Reads(ref.files)

    def read_episode(self, ref: SourceRef) -> "Episode":
        """Fields by their paths (`action`, `observations/qpos`), cameras by their names."""
        from foundry_core.data.robot.episodes import Episode
        from foundry_core.data.sources.robot import hdf5
        from foundry_core.data.sources.robot.steps import (
            check_steps,
            is_depth,
            is_lowdim,
            is_pictures,
        )

        file = hdf5.open_file(ref.path)
        hdf5.child(file, "action")
        lowdim: dict[str, np.ndarray] = {}
        images: dict[str, Frames] = {}
        depth: dict[str, Frames[np.ndarray]] = {}
        for path, dataset in hdf5.datasets(file, skip=("compress_len",)):
            camera = path.removeprefix(_IMAGES)
            if camera != path and hdf5.is_encoded(dataset):
                images[camera] = hdf5.encoded_frames(dataset, self._decoded)
            elif is_pictures(dataset.shape, dataset.dtype):
                images[camera] = hdf5.frames(dataset, self._coloured)
            elif is_depth(path, dataset.shape, dataset.dtype):
                depth[camera] = hdf5.depth_frames(dataset, self.depth_unit, lambda one: one)
            elif is_lowdim(dataset.shape):
                lowdim[path] = hdf5.field_values(dataset)
        check_steps(str(ref.path), lowdim, images)
        return Episode(
            id=episode_id(str(PurePosixPath(ref.name).with_suffix(""))),
            task=self.instruction or "aloha",
            hz=self.hz,
            success=None,
            instructions=self.words(()),
            lowdim=lowdim,
            images=images,
            depth=depth,
        )

    def _coloured(self, pixels: "np.ndarray") -> "np.ndarray":
        return pixels[:, :, ::-1] if self.channels == "bgr" else pixels

    def _decoded(self, data: bytes, where: str) -> "Picture":
        """A JPEG file stays one where its colours are right."""
        from foundry_core.data.images import decode_image, image_format
        from foundry_core.data.robot.episodes import UnusableEpisode
        from foundry_core.errors import FoundryError

        kind = image_format(data)
        if not kind or (kind == "jpg" and not data.endswith(b"\xff\xd9")):
            raise UnusableEpisode(f"{where} is no whole image file", "record it again")
        if self.channels == "rgb":
            return data
        try:
            return decode_image(data, where)[:, :, ::-1]
        except FoundryError as error:
            raise UnusableEpisode(error.message, error.hint) from error


FORMAT = Aloha
