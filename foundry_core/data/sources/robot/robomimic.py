"""robomimic's HDF5: `data/demo_<n>/{actions, states, rewards, dones, obs/<key>, ...}`.

`next_obs` repeats `obs` one step later and is not read.
"""

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

from foundry_core.data.contract.fields import FieldContract
from foundry_core.data.contract.statements import DataContract
from foundry_core.data.sources.robot.demo_files import METRES, DemoFiles, Facts

if TYPE_CHECKING:
    import h5py
    import numpy as np

_QUATERNION = FieldContract(dims=4, quantity="rotation", form="quaternion_xyzw")


class Robomimic(DemoFiles):
    """robomimic HDF5, one file or a folder of them. A ref is one `demo_<n>` of a file."""

    format: Literal["robomimic"] = "robomimic"

    @classmethod
    def matches(cls, path: Path) -> bool:
        from foundry_core.data.sources.robot.hdf5 import looks_like

        return looks_like(
            path,
            lambda f: (
                "data" in f
                and "env_args" in f["data"].attrs
                and "problem_info" not in f["data"].attrs
            ),
        )

    def contract(self) -> DataContract:
        fields = {
            f"obs/{robot}_{name}": meaning
            for robot in ("robot0", "robot1")
            for name, meaning in (("eef_pos", METRES), ("eef_quat", _QUATERNION))
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

        task = json_attribute(data, "env_args").get("env_name") or file.stem
        words = json_attribute(demo, "ep_meta").get("lang") or ""
        told = words if isinstance(words, list) else [words]
        return Facts(task=str(task), instructions=[str(one) for one in told])


FORMAT = Robomimic
