"""ROS 1 bags, ROS 2 bags (SQLite and MCAP) and MCAP files of ROS, protobuf or JSON messages.

One recording is one episode: its topics, each at a rate of its own, are brought to one clock.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from foundry_core.data.contract.statements import DataContract
from foundry_core.data.sources.base import PathSource, Reads, RobotFormat, SourceRef
from foundry_core.data.sources.robot import ros_files as files
from foundry_core.errors import FoundryError
from foundry_core.pipeline.stage import Config

if TYPE_CHECKING:
    from foundry_core.data.robot.episodes import Episode


class RosTopic(Config):
    """path: where in a message the numbers or the text lie; null: all that its type is known for,
    as `<name>/<part>`. joints: of a JointState, in this order; empty: those of its first message.
    stale: in place of the source's."""

    topic: str = Field(min_length=1, description="its name in the recording")
    path: str | None = Field(
        None,
        min_length=1,
        description="where in a message the numbers or the text lie; null: all that its type is "
        "known for",
    )
    joints: tuple[str, ...] = Field(
        (), description="of a JointState, in this order; empty: those of its first message"
    )
    stale: float | None = Field(
        None, ge=0, le=1e9, description="seconds for which a message holds; null: the source's"
    )


class Ros(RobotFormat, PathSource):
    """ROS bags and MCAP files; needs `pip install 'foundry-robotics[ros]'`.

    topics: {field, camera or kind of instruction: topic}; empty takes every topic whose type says
    what it is. clock: a topic whose stamps are the steps, at about `hz`; empty: steps at `hz`.
    """

    format: Literal["ros"] = "ros"
    topics: Mapping[str, RosTopic] = Field(
        {},
        description="field, camera or kind of instruction → topic; empty: every topic whose type "
        "says what it is",
    )
    hz: float = Field(10.0, gt=0, le=10_000, description="steps per second")
    clock: str = Field(
        "", description="topic whose stamps are the steps, at about hz; empty: steps at hz"
    )
    stale: float = Field(0.5, ge=0, le=1e9, description="seconds for which a message holds")
    time: Literal["header", "log"] = Field(
        "header", description="when a message counts: header.stamp (else published), or received"
    )
    keep_cut: bool = Field(False, description="read what is whole of a recording that is cut short")

    @classmethod
    def matches(cls, path: Path) -> bool:
        return files.looks_recorded(path)

    def contract(self) -> DataContract:
        return DataContract(hz=self.hz)

    def episodes(self) -> list[SourceRef]:
        """By name; the parts of a split recording are one."""
        files.require_libraries()
        return files.recordings(self.path)

    def reads(self, ref: SourceRef) -> Reads:
        return Reads(ref.files)

    def read_episode(self, ref: SourceRef) -> "Episode":
        import numpy as np

        from foundry_core.data.robot.episodes import Episode
        from foundry_core.data.sources.robot import ros_messages as messages
        from foundry_core.data.sources.robot.ros_clock import ticks
        from foundry_core.data.sources.robot.ros_tracks import Tracks

        tracks = Tracks(
            topics=self.topics, stale=round(self.stale * 10**9), by_log=self.time == "log"
        )
        heard: set[str] = set()
        for recording in _opened(ref):
            tracks.hear(recording)
            heard |= {channel.topic for channel in recording.channels}
            self._check_whole(recording)
        steps = ticks(tracks.finish(ref.name, self.clock, heard), self.hz, self.clock)
        words = {kind: texts for kind, texts in tracks.words.items() if texts}
        return Episode(
            id=files.episode_id(ref.name),
            task=next((texts[0] for texts in words.values()), ""),
            hz=self.hz,
            success=None,
            instructions=words,
            lowdim={n: np.stack(one.values)[one.at(steps)] for n, one in tracks.fields.items()},
            images={
                n: tracks.frames(one, steps, messages.picture) for n, one in tracks.cameras.items()
            },
            depth={n: tracks.frames(one, steps, messages.depth) for n, one in tracks.depth.items()},
        )

    def _check_whole(self, recording: files.Recording) -> None:
        from foundry_core.data.robot.episodes import UnusableEpisode

        if recording.cut and not self.keep_cut:
            raise UnusableEpisode(
                f"{recording.path} is cut short: {recording.cut}",
                "keep_cut: true reads what is whole before that",
            )


def _opened(ref: SourceRef) -> list[files.Recording]:
    """The recording's files. UnusableEpisode where one is not there."""
    from foundry_core.data.robot.episodes import UnusableEpisode
    from foundry_core.data.sources.robot.ros_bag1 import Bag1
    from foundry_core.data.sources.robot.ros_mcap import Mcap
    from foundry_core.data.sources.robot.ros_sqlite import SqliteFile

    readers: dict[str, Callable[[Path], files.Recording]] = {
        ".bag": Bag1,
        ".mcap": Mcap,
        ".db3": SqliteFile,
    }
    opened: list[files.Recording] = []
    for path in map(Path, ref.files):
        try:
            if path.name == files.METADATA:
                files.split_files(path)
        except FoundryError as error:
            raise UnusableEpisode(error.message, error.hint) from error
        ending = Path(path.name.removesuffix(files.PACKED)).suffix
        if ending not in readers or not path.is_file():
            raise UnusableEpisode(
                f"{path} is no recording" if path.is_file() else f"{path} is not there",
                f"files end in {', '.join(readers)}, or in that and {files.PACKED}",
            )
        opened.append(readers[ending](path))
    return opened


FORMAT = Ros
