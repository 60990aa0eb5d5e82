"""LBM Eval's raw "diffusion spartan" episodes.

tasks/<Skill>/.../diffusion_spartan/episode_<n>/processed/{observations,actions,...}.npz at 10 Hz.
`skill_type` in actions.npz holds pickled enums and is never read: the skill's name is in the path.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal, Self

from pydantic import PrivateAttr

from foundry_core.data.contract.fields import FieldContract
from foundry_core.data.contract.statements import DataContract
from foundry_core.data.sources.base import PathSource, Reads, RobotFormat, SourceRef
from foundry_core.errors import FoundryError
from foundry_core.identity.sources import is_remote, source_entries

if TYPE_CHECKING:
    import numpy as np

    from foundry_core.data.robot.episodes import Episode, Frames
    from foundry_core.data.sources.robot.npz_files import NpzFile

HZ = 10.0
# An episode that lacks some of these is listed, and then found unusable.
_FILES = ("observations.npz", "actions.npz", "metadata.yaml")
_CAMERAS = "camera_id_to_semantic_name"
_DEPTH = "_depth"
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
        names = source_entries(self.root, _FILES) if self.root.is_dir() else []
        paths = map(PurePosixPath, names)
        folders = list(dict.fromkeys(p.parent for p in paths if p.parent.name == "processed"))
        if not folders:
            raise FoundryError(
                f"no episode_*/processed/observations.npz below {str(self.root)!r}",
                "point it at the folder that holds tasks/, a task, or an episode",
            )
        return [SourceRef(name=str(f), files=(str(self.root / f),)) for f in folders]

    def read_episode(self, ref: SourceRef) -> "Episode":
        """One episode; its id is its path below the root. The folders above the root say its skill
        where none below it does. Pictures are read when they are asked for."""
        from foundry_core.data.robot.episodes import Episode
        from foundry_core.data.sources.robot.npz_files import NpzFile

        folder = ref.path
        observations = NpzFile.at(folder / "observations.npz")
        actions = NpzFile.at(folder / "actions.npz").array("actions")
        names = _camera_names(folder / "metadata.yaml")
        below = folder.parent.relative_to(self.root)
        skill = _skill((*self.folders_above(), *below.parts))
        return Episode(
            id=re.sub(r"[^A-Za-z0-9_-]+", "_", str(below)).strip("_") or skill,
            task=skill,
            hz=HZ,
            success=_success(folder / "summary.npz"),
            instructions={"original": _told(observations) or [_words(skill)]},
            lowdim=_measured(observations) | split_actions(actions),
            images={names[i]: observations.frames(i) for i in names if i in observations},
            intrinsics=_by_name(folder / "intrinsics.npz", names),
            extrinsics=_by_name(folder / "extrinsics.npz", names),
            depth={
                names[i]: _depth(observations, i) for i in names if f"{i}{_DEPTH}" in observations
            },
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


def _camera_names(path: Path) -> dict[str, str]:
    """{camera id: name} of metadata.yaml. UnusableEpisode where it does not say."""
    from foundry_core.config.documents import read_yaml
    from foundry_core.data.robot.episodes import UnusableEpisode
    from foundry_core.data.sources.robot.steps import check_file

    hint = f"it maps {_CAMERAS} to {{id: name}}"
    check_file(path)
    try:
        stated = read_yaml(path)
    except (FoundryError, OSError) as error:
        reason = error.message if isinstance(error, FoundryError) else error
        raise UnusableEpisode(f"{path} is no YAML: {reason}", hint) from error
    names = stated.get(_CAMERAS) if isinstance(stated, dict) else None
    if not isinstance(names, dict):
        raise UnusableEpisode(f"{path} has no {_CAMERAS}", hint)
    for camera, name in names.items():
        if not isinstance(camera, str) or not isinstance(name, str):
            raise UnusableEpisode(f"{path}: {_CAMERAS} maps {camera!r} to {name!r}", hint)
    return names


def _told(observations: "NpzFile") -> list[str]:
    """Each instruction once, in the order of the steps; of blank ones alone the first, which is
    found wrong where all words are looked at."""
    if "language_instruction" not in observations:
        return []
    said = list(map(str, observations.array("language_instruction").reshape(-1).tolist()))
    return list(dict.fromkeys(text.strip() for text in said if text.strip())) or said[:1]


def _depth(observations: "NpzFile", camera: str) -> "Frames[np.ndarray]":
    """A camera's [H, W] in metres: whole numbers are millimetres."""
    from foundry_core.data.robot.episodes import Frames
    from foundry_core.data.sources.robot.steps import check_numbers, metres

    member = f"{camera}{_DEPTH}"
    stored = observations.frames(member)

    def read(step: int) -> "np.ndarray":
        values = stored[step]
        check_numbers(values.dtype, f"{observations.where}: {member!r}")
        if values.ndim != 2:
            raise ValueError(f"{member} is {list(values.shape)}, no depth [H, W]")
        return metres(values, None)

    return Frames(len(stored), read)


def _measured(observations: "NpzFile") -> "dict[str, np.ndarray]":
    from foundry_core.data.sources.robot.steps import check_numbers

    fields: dict[str, np.ndarray] = {}
    for name in observations.names:
        if name.startswith("robot__"):
            array = observations.array(name)
            check_numbers(array.dtype, f"{observations.where}: {name!r}")
            if array.dtype.kind == "f":
                fields[name] = array
    return fields


def _by_name(path: Path, names: Mapping[str, str]) -> "dict[str, np.ndarray]":
    from foundry_core.data.sources.robot.npz_files import NpzFile

    if not path.exists():
        return {}
    file = NpzFile.at(path)
    return {name: file.array(camera) for camera, name in names.items() if camera in file}


def _success(path: Path) -> bool | None:
    from foundry_core.data.robot.episodes import UnusableEpisode
    from foundry_core.data.sources.robot.npz_files import NpzFile

    if not path.exists() or "episode_success" not in (file := NpzFile.at(path)):
        return None
    success = file.array("episode_success")
    if success.size != 1 or success.dtype.kind not in "biuf":
        raise UnusableEpisode(
            f"{path}: 'episode_success' is {success.dtype} {list(success.shape)}", "mend it"
        )
    return bool(success)


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
