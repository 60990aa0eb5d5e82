"""LBM Eval's raw "diffusion spartan" episodes.

tasks/<Skill>/.../diffusion_spartan/episode_<n>/processed/{observations,actions,...}.npz at 10 Hz.
`skill_type` in actions.npz holds pickled enums and is never read: the skill's name is in the path.
"""

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np
import yaml

from foundry_core.data.robot.episodes import Episode, UnusableEpisode
from foundry_core.errors import FoundryError
from foundry_core.identity.sources import source_files

HZ = 10.0
_SIDES = ("right", "left")


def spartan_refs(root: Path) -> list[Path]:
    """The `processed` folders below a root, a task folder or an episode folder, sorted."""
    names = [PurePosixPath(name) for name in source_files(root)] if root.is_dir() else []
    found = [
        root / name.parent for name in names if name.parts[-2:] == ("processed", "observations.npz")
    ]
    if not found:
        raise FoundryError(
            f"no episode_*/processed/observations.npz below {str(root)!r}",
            "point it at the folder that holds tasks/, a task, or an episode",
        )
    return found


def read_spartan(folder: Path, root: Path, above: tuple[str, ...]) -> Episode:
    """One episode; its id is its path below the root. `above` names the folders above the root
    that say its skill where none below it does."""
    try:
        observations = _arrays(folder / "observations.npz", skip=())
        actions = _arrays(folder / "actions.npz", skip=("skill_type",))["actions"]
        names = yaml.safe_load((folder / "metadata.yaml").read_text())["camera_id_to_semantic_name"]
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UnusableEpisode(
            f"{folder.parent} is not a readable spartan episode: {error!r}", "fetch it again"
        ) from error
    lowdim = {
        name: array
        for name, array in observations.items()
        if name.startswith("robot__") and array.dtype.kind == "f"
    } | split_actions(actions)
    below = folder.parent.relative_to(root)
    skill = _skill((*above, *below.parts))
    instruction = observations.get("language_instruction")
    spoken = str(instruction[0]) if instruction is not None and len(instruction) else _words(skill)
    return Episode(
        id=re.sub(r"[^A-Za-z0-9_-]+", "_", str(below)).strip("_") or skill,
        task=skill,
        hz=HZ,
        success=_success(folder / "summary.npz"),
        instructions={"original": [spoken]},
        lowdim=lowdim,
        images={names[i]: observations[i] for i in names if i in observations},
        intrinsics=_by_name(folder / "intrinsics.npz", names),
        extrinsics=_by_name(folder / "extrinsics.npz", names),
    )


def split_actions(actions: np.ndarray) -> dict[str, np.ndarray]:
    """[T, 20] = R xyz 3 | R rot6d 6 | L xyz 3 | L rot6d 6 | R gripper | L gripper → fields."""
    if actions.ndim != 2 or actions.shape[1] != 20:
        raise UnusableEpisode(f"actions have shape {actions.shape}, expected (T, 20)", "check them")
    fields: dict[str, np.ndarray] = {}
    for number, side in enumerate(_SIDES):
        at = 9 * number
        fields[f"robot__action__poses__{side}::panda__xyz"] = actions[:, at : at + 3]
        fields[f"robot__action__poses__{side}::panda__rot_6d"] = actions[:, at + 3 : at + 9]
        fields[f"robot__action__grippers__{side}::panda_hand"] = actions[:, 18 + number, None]
    return fields


def _arrays(path: Path, skip: tuple[str, ...]) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        wanted = [
            n for n in archive.files if n not in skip and not n.endswith(("_depth", "_label"))
        ]
        return {name: archive[name] for name in wanted}


def _by_name(path: Path, names: Mapping[str, str]) -> dict[str, np.ndarray]:
    if not path.is_file():
        return {}
    return {names[i]: array for i, array in _arrays(path, ()).items() if i in names}


def _success(path: Path) -> bool | None:
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
