"""LIBERO's HDF5: robomimic's layout, one file per task, the instruction in `problem_info`."""

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from foundry_core.data.contract.fields import FieldContract
from foundry_core.data.contract.statements import DataContract
from foundry_core.data.sources.robot.demo_files import METRES, DemoFiles, Facts

if TYPE_CHECKING:
    import h5py
    import numpy as np


class LiberoHdf5(DemoFiles):
    """LIBERO HDF5, one `<task>_demo.hdf5` or a folder of them. A ref is one `demo_<n>` of a file.

    Pictures are stored upside down (OpenGL's origin): flip_pictures turns rows, and nothing else;
    `rotate: 180` of the conversion would mirror the scene too.
    """

    format: Literal["libero_hdf5"] = "libero_hdf5"
    flip_pictures: bool = Field(False, description="rows of OpenGL pictures from top to bottom")

    @classmethod
    def matches(cls, path: Path) -> bool:
        from foundry_core.data.sources.robot.hdf5 import looks_like

        return looks_like(path, lambda f: "data" in f and "problem_info" in f["data"].attrs)

    def contract(self) -> DataContract:
        fields = {
            "obs/ee_pos": METRES,
            "obs/ee_ori": FieldContract(dims=3, quantity="rotation", form="axis_angle", unit="rad"),
            "obs/joint_states": FieldContract(dims=7, quantity="joints", unit="rad"),
        }
        return DataContract(hz=self.hz, fields=fields)

    def facts(
        self,
        file: PurePosixPath,
        data: "h5py.Group",
        demo: "h5py.Group",
        lowdim: "dict[str, np.ndarray]",
    ) -> Facts:
        from foundry_core.data.sources.robot.hdf5 import json_attribute

        words = json_attribute(data, "problem_info").get("language_instruction") or ""
        if isinstance(words, list):
            words = "".join(map(str, words))
        dones = lowdim.get("dones")
        return Facts(
            task=file.stem.removesuffix("_demo"),
            instructions=[str(words).strip('"')],
            success=True if dones is not None and dones[-1].all() else None,
        )

    def flips(self, data: "h5py.Group") -> bool:
        from foundry_core.data.sources.robot.hdf5 import attribute

        return self.flip_pictures and attribute(data, "macros_image_convention") == "opengl"


FORMAT = LiberoHdf5
