"""Demonstrations as the simulator stages record them: demos.json, episodes/<task>/<id>.tar."""

import io
import json
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np

from foundry_core.data.robot.episodes import Episode, UnusableEpisode
from foundry_core.errors import FoundryError
from foundry_core.identity.sources import source_files


def demonstration_refs(root: Path) -> list[Path]:
    """Every episode file, sorted by task and name."""
    if not (root / "demos.json").is_file():
        raise FoundryError(
            f"{str(root)!r} holds no demos.json", "point it at a collect_demos artifact"
        )
    tars = [PurePosixPath(name) for name in source_files(root) if name.endswith(".tar")]
    return [root / tar for tar in tars if tar.parts[0] == "episodes" and len(tar.parts) == 3]


def read_demonstration(path: Path) -> Episode:
    """Raises UnusableEpisode for a truncated or foreign file."""
    members: dict[str, bytes] = {}
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                stream = tar.extractfile(member)
                members[member.name] = stream.read() if stream else b""
        meta = json.loads(members["meta.json"])
        with np.load(io.BytesIO(members["lowdim.npz"]), allow_pickle=False) as arrays:
            lowdim = {name: arrays[name] for name in arrays.files}
    except (tarfile.TarError, EOFError, KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
        raise UnusableEpisode(
            f"{path.name} is not a readable episode: {error!r}", "record it again"
        ) from error
    images: dict[str, list[bytes]] = {}
    for name in sorted(members):
        camera, slash, _ = name.partition("/")
        if slash:
            images.setdefault(camera, []).append(members[name])
    return Episode(
        id=meta["id"],
        task=meta["task"],
        hz=meta["hz"],
        success=meta["success"],
        instructions=meta["instructions"],
        lowdim=lowdim,
        images=images,
    )
