"""Which recordings lie in a folder, and what the readers of their files share.

One recording is one episode: a ROS 1 bag, the folder of a ROS 2 bag, an MCAP file. Parts that a
recorder split belong together.
"""

import importlib.util
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol

from foundry_core.data.sources.base import SourceRef
from foundry_core.data.sources.files import find_files, look
from foundry_core.errors import FoundryError

ENDINGS = (".bag", ".db3", ".mcap")
PACKED = ".zstd"
METADATA = "metadata.yaml"
_MODULES = ("rosbags", "mcap", "mcap_protobuf", "lz4", "zstandard")
_INFORMATION = "rosbag2_bagfile_information"
# What `rosbag record --split` calls the parts of one recording.
_PART = re.compile(r"(.*?)_?\d{4}(?:-\d\d){5}_(\d+)\.bag")


@dataclass(frozen=True, kw_only=True)
class Channel:
    """What is said of all messages of a topic. encoding: cdr, ros1, protobuf or json.
    schema_encoding: ros2msg, ros2idl, ros1msg, protobuf, jsonschema or "", of `schema`."""

    topic: str
    type: str
    encoding: str
    schema_encoding: str = ""
    schema: bytes = field(default=b"", repr=False)

    @property
    def kind(self) -> str:
        """The type without its package."""
        return re.split(r"[/.]", self.type)[-1]


@dataclass(frozen=True, kw_only=True, slots=True)
class Raw:
    """One message. log, publish: ns since 1970. place: what `fetch` finds it by again."""

    channel: Channel
    log: int
    publish: int
    data: bytes
    place: tuple[int, ...]


class Recording(Protocol):
    """One file. channels: all that were seen by `messages`, wanted or not. cut: where and how it
    ends too early, as `messages` found it; "" of a whole one."""

    path: Path
    channels: list[Channel]
    cut: str

    def messages(self, wanted: Callable[[str], bool]) -> Iterator[Raw]:
        """The whole messages of some topics, in the order of the file. UnusableEpisode."""

    def fetch(self, place: tuple[int, ...]) -> bytes:
        """A message's bytes. UnusableEpisode."""


def require_libraries() -> None:
    """FoundryError where the extra is not installed."""
    for module in _MODULES:
        if importlib.util.find_spec(module) is None:
            raise FoundryError(
                f"ROS and MCAP recordings are read with {module}, which is not installed here",
                "pip install 'foundry-robotics[ros]'",
            )


def looks_recorded(path: Path) -> bool:
    """A recording, or a folder of such, at most one level down."""
    endings = (*ENDINGS, *(ending + PACKED for ending in ENDINGS))
    return any(file.name.endswith(endings) for file in look(path, levels=2))


def recordings(path: str) -> list[SourceRef]:
    """One piece per recording, by name; its files in the order in which they were recorded."""
    root = Path(path).expanduser()
    endings = (*ENDINGS, *(ending + PACKED for ending in ENDINGS), METADATA)
    files = find_files(path, endings, odd=True)
    if root.is_file():
        return [SourceRef(name=root.name, files=(str(root),))]
    folders = {file.parent: file for file in files if file.name == METADATA and _describes(file)}
    refs = []
    for folder, metadata in folders.items():
        name = root.name if folder == root else folder.relative_to(root).as_posix()
        try:
            parts = split_files(metadata)
        except FoundryError:
            parts = [metadata]  # to be refused when it is read: one bad folder is one episode
        refs.append(SourceRef(name=name, files=tuple(map(str, parts))))
    single = [file for file in files if file.parent not in folders and file.name != METADATA]
    for group in _joined(single):
        name = group[0].relative_to(root).as_posix()
        refs.append(SourceRef(name=name, files=tuple(map(str, group))))
    if not refs:
        raise FoundryError(f"source {str(root)!r} holds no recording", "point it at bags")
    return sorted(refs, key=lambda ref: ref.name)


def _describes(metadata: Path) -> bool:
    """Whether it is a ROS 2 bag's, and no other file of that name."""
    try:
        with metadata.open("rb") as stream:
            return _INFORMATION.encode() in stream.read(4096)
    except OSError:
        return True  # to be refused when it is read


def split_files(metadata: Path) -> list[Path]:
    """The files of a ROS 2 bag, all in its folder. FoundryError where it does not say."""
    from foundry_core.config.documents import read_yaml

    try:
        stated = read_yaml(metadata)
        names = [str(name) for name in stated[_INFORMATION]["relative_file_paths"]]
    except (FoundryError, KeyError, TypeError) as error:
        raise FoundryError(
            f"{metadata} lists no files of a ROS 2 bag: {error!r}", "ros2 bag reindex writes it"
        ) from error
    if not names:
        raise FoundryError(f"{metadata} lists no files", "ros2 bag reindex writes it")
    return [metadata.parent / PurePosixPath(name).name for name in names]


def episode_id(name: str) -> str:
    """What samples are called by: a recording's name without the ending, nor dots and slashes."""
    for ending in (PACKED, *ENDINGS):
        name = name.removesuffix(ending)
    return name.replace("/", "__").replace(".", "_")


def _joined(files: list[Path]) -> list[list[Path]]:
    """Split ROS 1 bags as one recording each: part 0 begins it, part n follows part n - 1."""
    groups: list[list[Path]] = []
    last: tuple[str, int] | None = None
    for file in files:
        match = _PART.fullmatch(file.name)
        this = (f"{file.parent}/{match[1]}", int(match[2])) if match else None
        if this and last and this == (last[0], last[1] + 1):
            groups[-1].append(file)
        else:
            groups.append([file])
        last = this
    return groups
