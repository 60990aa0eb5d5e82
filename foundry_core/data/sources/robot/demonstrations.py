"""Demonstrations as the simulator stages record them: demos.json, episodes/<task>/<id>.tar."""

import io
import json
import tarfile
import zipfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

from foundry_core.config.validation import validate
from foundry_core.data.contract.statements import DataContract
from foundry_core.data.shards.tar import read_span
from foundry_core.data.sources.base import PathSource, Reads, RobotFormat, SourceRef
from foundry_core.errors import FoundryError
from foundry_core.files import read_json
from foundry_core.identity.sources import source_files

if TYPE_CHECKING:
    from foundry_core.data.robot.episodes import Episode, Frames


class Demonstrations(RobotFormat, PathSource):
    """Episodes as the simulator stages record them (demos.json + episodes/<task>/<id>.tar)."""

    format: Literal["demonstrations"] = "demonstrations"

    @classmethod
    def matches(cls, path: Path) -> bool:
        return (path / "demos.json").is_file()

    def contract(self) -> DataContract:
        path = self.root / "demos.json"
        if self.remote is not None or not path.is_file():
            return DataContract()
        stated: DataContract = validate(DataContract, read_json(path).get("contract"), str(path))
        return stated

    def episodes(self) -> list[SourceRef]:
        """Every episode file, sorted by task and name."""
        if not (self.root / "demos.json").is_file():
            raise FoundryError(
                f"{str(self.root)!r} holds no demos.json", "point it at a collect_demos artifact"
            )
        tars = [PurePosixPath(n) for n in source_files(self.root) if n.endswith(".tar")]
        return [
            SourceRef(name=str(tar), files=(str(self.root / tar),))
            for tar in tars
            if tar.parts[0] == "episodes" and len(tar.parts) == 3
        ]

    def reads(self, ref: SourceRef) -> Reads:
        return Reads(ref.files)

    def read_episode(self, ref: SourceRef) -> "Episode":
        import numpy as np

        from foundry_core.data.robot.episodes import Episode, UnusableEpisode

        try:
            members = _members(ref.path)
            meta = json.loads(_read(ref.path, *members["meta.json"]))
            lowdim_file = io.BytesIO(_read(ref.path, *members["lowdim.npz"]))
            with np.load(lowdim_file, allow_pickle=False) as arrays:
                lowdim = {name: arrays[name] for name in arrays.files}
        except (
            tarfile.TarError, EOFError, KeyError, ValueError, OSError, zipfile.BadZipFile,
        ) as error:  # fmt: skip
            raise UnusableEpisode(
                f"{ref.path.name} is not a readable episode: {error!r}", "record it again"
            ) from error
        spans: dict[str, list[tuple[int, int]]] = {}
        for name in sorted(members):
            camera, slash, _ = name.partition("/")
            if slash:
                spans.setdefault(camera, []).append(members[name])
        return Episode(
            id=meta["id"],
            task=meta["task"],
            hz=meta["hz"],
            success=meta["success"],
            instructions=meta["instructions"],
            lowdim=lowdim,
            images={camera: _frames(ref.path, files) for camera, files in spans.items()},
        )


def _members(path: Path) -> dict[str, tuple[int, int]]:
    """{name: (first byte, bytes)} of the files of a tar."""
    with tarfile.open(path, "r:") as tar:
        found = {m.name: (m.offset_data, m.size) for m in tar if m.isfile()}
    end = max((start + size for start, size in found.values()), default=0)
    if end > path.stat().st_size:
        raise EOFError(f"it ends before byte {end}")
    return found


def _frames(path: Path, spans: list[tuple[int, int]]) -> "Frames[bytes]":
    from foundry_core.data.robot.episodes import Frames

    return Frames(len(spans), lambda step: _read(path, *spans[step]))


def _read(path: Path, start: int, size: int) -> bytes:
    with path.open("rb") as stream:
        return read_span(stream, start, size)


FORMAT = Demonstrations
