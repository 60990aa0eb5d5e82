"""Demonstrations as the simulator stages record them: demos.json, episodes/<task>/<id>.tar."""

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from foundry_core.config.validation import validate
from foundry_core.data.contract.statements import DataContract
from foundry_core.data.shards.tar import read_span
from foundry_core.data.shards.walk import Member, walk_tar
from foundry_core.data.sources.base import MAX_DOCUMENT, PathSource, Reads, RobotFormat, SourceRef
from foundry_core.errors import FoundryError
from foundry_core.files import read_json
from foundry_core.identity.sources import source_entries

if TYPE_CHECKING:
    from foundry_core.data.robot.episodes import Episode, Frames

_META, _LOWDIM = "meta.json", "lowdim.npz"


class Demonstrations(RobotFormat, PathSource):
    """Episodes as the simulator stages record them (demos.json + episodes/<task>/<id>.tar)."""

    format: Literal["demonstrations"] = "demonstrations"

    mark: ClassVar[str] = "demos.json"

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
        tars = map(PurePosixPath, source_entries(self.root, (".tar",)))
        return [
            SourceRef(name=str(tar), files=(str(self.root / tar),))
            for tar in tars
            if tar.parts[0] == "episodes" and len(tar.parts) == 3
        ]

    def reads(self, ref: SourceRef) -> Reads:
        return Reads(ref.files)

    def read_episode(self, ref: SourceRef) -> "Episode":
        from foundry_core.data.robot.episodes import Episode
        from foundry_core.data.sources.robot.npz_files import NpzFile

        members = _members(ref)
        meta = _meta(members, ref)
        lowdim = NpzFile.of(_member(members, _LOWDIM, ref), f"{ref.name}: {_LOWDIM}")
        spans: dict[str, list[Member]] = {}
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
            lowdim={name: lowdim.array(name) for name in lowdim.names},
            images={camera: _frames(ref.path, files) for camera, files in spans.items()},
        )


def _members(ref: SourceRef) -> dict[str, Member]:
    from foundry_core.data.robot.episodes import UnusableEpisode

    try:
        if not ref.path.is_file():
            raise FoundryError("it is no file" if ref.path.exists() else "there is no such file")
        return {member.name: member for member in walk_tar(ref.path)}
    except (FoundryError, OSError) as error:
        reason = error.message if isinstance(error, FoundryError) else error
        raise UnusableEpisode(
            f"{ref.name} is not a readable episode: {reason}", "record it again"
        ) from error


def _member(members: Mapping[str, Member], name: str, ref: SourceRef) -> bytes:
    from foundry_core.data.robot.episodes import UnusableEpisode

    if name not in members:
        raise UnusableEpisode(f"{ref.name} holds no {name}", "record it again")
    return _read(ref.path, members[name])


def _read(path: Path, member: Member) -> bytes:
    """At most what a document may have, and a byte that tells."""
    with path.open("rb") as stream:
        return read_span(stream, member.offset, min(member.size, MAX_DOCUMENT + 1))


def _frames(path: Path, members: list[Member]) -> "Frames[bytes]":
    from foundry_core.data.robot.episodes import Frames

    return Frames(len(members), lambda step: _read(path, members[step]))


def _meta(members: Mapping[str, Member], ref: SourceRef) -> Mapping[str, Any]:
    """meta.json, with all of its keys and its instructions as they must be."""
    from foundry_core.data.robot.episodes import UnusableEpisode
    from foundry_core.data.sources.robot.steps import readable

    where = ref.name
    data = _member(members, _META, ref)
    with readable(f"{where}: {_META}"):
        meta = json.loads(data)
    for name in ("id", "task", "hz", "success", "instructions"):
        if not isinstance(meta, dict) or name not in meta:
            raise UnusableEpisode(f"{where}: {_META} has no {name!r}", "record it again")
    words = meta["instructions"]
    if not isinstance(words, dict) or not all(isinstance(one, list) for one in words.values()):
        raise UnusableEpisode(
            f"{where}: {_META} has the instructions {words!r}", "they are {kind: [text, ...]}"
        )
    return meta


FORMAT = Demonstrations
