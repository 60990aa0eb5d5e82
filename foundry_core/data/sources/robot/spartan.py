"""LBM Eval's raw "diffusion spartan" episodes.

tasks/<Skill>/.../diffusion_spartan/episode_<n>/processed/{observations,actions,...}.npz at 10 Hz.
`skill_type` in actions.npz holds pickled enums and is never read: the skill's name is in the path.
"""

import math
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Literal, Self

from pydantic import PrivateAttr

from foundry_core.config.documents import read_yaml
from foundry_core.data.contract.fields import FieldContract
from foundry_core.data.contract.statements import DataContract
from foundry_core.data.sources.base import PathSource, Reads, RobotFormat, SourceRef
from foundry_core.errors import FoundryError
from foundry_core.identity.sources import is_remote, source_files

if TYPE_CHECKING:
    import numpy as np

    from foundry_core.data.robot.episodes import Episode, Frames

HZ = 10.0
_SIDES = ("right", "left")
_KINDS = ("actual", "desired", "action")


class Spartan(RobotFormat, PathSource):
    """LBM "diffusion spartan" episodes below a root, task, or episode folder."""

    format: Literal["spartan"] = "spartan"
    _above: tuple[str, ...] | None = PrivateAttr(None)

    @classmethod
    def matches(cls, path: Path) -> bool:
        from foundry_core.data.sources.files import look

        mark = ("processed", "observations.npz")
        return any(file.relative_to(path).parts[-2:] == mark for file in look(path))

    def contract(self) -> DataContract:
        gripper = FieldContract(dims=1, quantity="gripper", unit="m", closed=0.0, open=0.1)
        names = [f"robot__{k}__grippers__{s}::panda_hand" for k in _KINDS for s in _SIDES]
        return DataContract(hz=HZ, fields=dict.fromkeys(names, gripper))

    @property
    def named(self) -> Mapping[str, str]:
        above = self.folders_above()
        return {**super().named, **({"folders above": "/".join(above)} if above else {})}

    def reads(self, ref: SourceRef) -> Reads:
        return Reads(ref.files)

    def fetched(self, path: str) -> Self:
        copy = super().fetched(path)
        copy._above = self.folders_above()
        return copy

    def folders_above(self) -> tuple[str, ...]:
        """From the last `tasks` in the root's own path to the skill that follows it, as far as the
        path goes; nothing where `tasks` lies in the root."""
        if self._above is not None:
            return self._above
        path = self.path
        if not is_remote(path):
            path = os.path.abspath(os.path.expanduser(path))
            if os.path.isdir(os.path.join(path, "tasks")):
                return ()
        parts = path.rstrip("/").split("/")
        marks = [number for number, part in enumerate(parts) if part == "tasks"]
        return tuple(parts[marks[-1] : marks[-1] + 2]) if marks else ()

    def episodes(self) -> list[SourceRef]:
        """The `processed` folders below a root, a task folder or an episode folder, sorted."""
        names = source_files(self.root) if self.root.is_dir() else []
        folders = [
            path.parent
            for path in map(PurePosixPath, names)
            if path.parts[-2:] == ("processed", "observations.npz")
        ]
        if not folders:
            raise FoundryError(
                f"no episode_*/processed/observations.npz below {str(self.root)!r}",
                "point it at the folder that holds tasks/, a task, or an episode",
            )
        return [SourceRef(name=str(f), files=(str(self.root / f),)) for f in folders]

    def read_episode(self, ref: SourceRef) -> "Episode":
        """One episode; its id is its path below the root. The folders above the root say its skill
        where none below it does."""
        from foundry_core.data.robot.episodes import Episode, UnusableEpisode

        folder = ref.path
        try:
            metadata = read_yaml(folder / "metadata.yaml")
            names = metadata["camera_id_to_semantic_name"]
            observations = _arrays(folder / "observations.npz", skip=tuple(names))
            images = dict(_films(folder / "observations.npz", names))
            depth = dict(_depth_films(folder / "observations.npz", names))
            actions = _arrays(folder / "actions.npz", skip=("skill_type",))["actions"]
        except (
            *(FoundryError, OSError, AttributeError, KeyError, TypeError, ValueError, EOFError),
            zipfile.BadZipFile,
        ) as error:
            raise UnusableEpisode(
                f"{folder.parent} is not a readable spartan episode: {error!r}", "fetch it again"
            ) from error
        measured = {
            name: array
            for name, array in observations.items()
            if name.startswith("robot__") and array.dtype.kind == "f"
        }
        below = folder.parent.relative_to(self.root)
        skill = _skill((*self.folders_above(), *below.parts))
        stored = observations.get("language_instruction")
        said = [] if stored is None else [str(one).strip() for one in stored.ravel()]
        told = list(dict.fromkeys(text for text in said if text))
        return Episode(
            id=re.sub(r"[^A-Za-z0-9_-]+", "_", str(below)).strip("_") or skill,
            task=skill,
            hz=HZ,
            success=_success(folder / "summary.npz"),
            instructions={"original": told or [_words(skill)]},
            lowdim=measured | split_actions(actions),
            images=images,
            intrinsics=_by_name(folder / "intrinsics.npz", names),
            extrinsics=_by_name(folder / "extrinsics.npz", names),
            depth=depth,
        )


def split_actions(actions: "np.ndarray") -> dict[str, "np.ndarray"]:
    """[T, 20] = R xyz 3 | R rot6d 6 | L xyz 3 | L rot6d 6 | R gripper | L gripper → fields."""
    from foundry_core.data.robot.episodes import UnusableEpisode

    if actions.ndim != 2 or actions.shape[1] != 20:
        raise UnusableEpisode(f"actions have shape {actions.shape}, expected (T, 20)", "check them")
    fields: dict[str, np.ndarray] = {}
    for number, side in enumerate(_SIDES):
        at = 9 * number
        fields[f"robot__action__poses__{side}::panda__xyz"] = actions[:, at : at + 3]
        fields[f"robot__action__poses__{side}::panda__rot_6d"] = actions[:, at + 3 : at + 9]
        fields[f"robot__action__grippers__{side}::panda_hand"] = actions[:, 18 + number, None]
    return fields


def _arrays(path: Path, skip: tuple[str, ...] = ()) -> dict[str, "np.ndarray"]:
    import numpy as np

    with np.load(path, allow_pickle=False) as archive:
        wanted = [
            n for n in archive.files if n not in skip and not n.endswith(("_depth", "_label"))
        ]
        return {name: archive[name] for name in wanted}


def _films(path: Path, names: Mapping[str, str]) -> "Iterator[tuple[str, Frames[np.ndarray]]]":
    """(camera, its pictures [H, W, 3]), which an episode has gigabytes of: read one by one."""
    import numpy as np

    from foundry_core.data.robot.episodes import Frames

    for camera, name, film in _opened(path, names):
        if film.dtype != np.uint8 or len(film.shape) != 3:
            raise ValueError(f"{camera} is {film.dtype} {list(film.shape)}, not uint8 [H, W, 3]")
        yield name, Frames(film.length, film)


def _depth_films(
    path: Path, names: Mapping[str, str]
) -> "Iterator[tuple[str, Frames[np.ndarray]]]":
    """(camera, its depth [H, W] in metres): whole numbers are millimetres."""
    import numpy as np

    from foundry_core.data.robot.episodes import Frames

    def metres(film: _Film) -> "Frames[np.ndarray]":
        scale = 1e-3 if film.dtype.kind in "iu" else 1.0
        return Frames(film.length, lambda step: (film(step) * scale).astype(np.float32))

    for member, name, film in _opened(path, {f"{i}_depth": name for i, name in names.items()}):
        if film.dtype.kind not in "iuf" or len(film.shape) != 2:
            raise ValueError(f"{member} is {film.dtype} {list(film.shape)}, no depth [H, W]")
        yield name, metres(film)


def _opened(path: Path, names: Mapping[str, str]) -> "Iterator[tuple[str, str, _Film]]":
    """(member, its name, film) of those that are there."""
    with zipfile.ZipFile(path) as archive:
        held = set(archive.namelist())
    for member, name in names.items():
        if f"{member}.npy" in held:
            # Closed with the pictures that come out of it.
            stream = zipfile.ZipFile(path).open(f"{member}.npy")  # noqa: SIM115
            yield member, name, _Film(stream)


class _Film:
    """Pictures out of an .npy [T, ...] in a zip; forwards without unpacking anything twice."""

    def __init__(self, stream: "IO[bytes]") -> None:
        import numpy as np

        newer = np.lib.format.read_magic(stream) != (1, 0)
        header = (
            np.lib.format.read_array_header_2_0 if newer else np.lib.format.read_array_header_1_0
        )
        shape, fortran, self.dtype = header(stream)
        if not shape or fortran:
            raise ValueError(f"an array {list(shape)} that does not lie by steps")
        self.length, self.shape = shape[0], shape[1:]
        self._stream, self._start = stream, stream.tell()

    def __call__(self, step: int) -> "np.ndarray":
        import numpy as np

        size = math.prod(self.shape) * self.dtype.itemsize
        if self._stream.tell() != self._start + step * size:
            self._stream.seek(self._start + step * size)
        data = self._stream.read(size)
        if len(data) != size:
            raise EOFError(f"it ends before the picture of step {step}")
        return np.frombuffer(data, self.dtype).reshape(self.shape)


def _by_name(path: Path, names: Mapping[str, str]) -> dict[str, "np.ndarray"]:
    if not path.is_file():
        return {}
    return {names[i]: array for i, array in _arrays(path).items() if i in names}


def _success(path: Path) -> bool | None:
    import numpy as np

    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as archive:
        return bool(archive["episode_success"]) if "episode_success" in archive.files else None


def _skill(folders: tuple[str, ...]) -> str:
    """The folder after the last `tasks`, or the episode's own. A root that is an episode does not
    lend its name: it is not part of what identifies it."""
    marks = [number for number, name in enumerate(folders[:-1]) if name == "tasks"]
    if marks:
        return folders[marks[-1] + 1]
    return folders[-1] if folders else "episode"


def _words(skill: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", skill).lower()


FORMAT = Spartan
