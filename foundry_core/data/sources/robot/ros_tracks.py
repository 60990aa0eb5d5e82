"""From messages to fields, cameras and words: which topic becomes what."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from foundry_core.config.suggest import nearest
from foundry_core.data.robot.episodes import Frames, UnusableEpisode
from foundry_core.data.sources.robot import ros_messages as messages
from foundry_core.data.sources.robot.ros_clock import Track
from foundry_core.data.sources.robot.ros_decoding import Decoder
from foundry_core.data.sources.robot.ros_files import Channel, Raw, Recording
from foundry_core.errors import FoundryError

if TYPE_CHECKING:
    from foundry_core.data.sources.robot.ros import RosTopic

_NS = 10**9
_MAX_TEXT = 10_000
_MAX_MESSAGES = 5_000_000
# A String is taken for an instruction where the end of its topic says so.
_SPOKEN = ("instruction", "task", "language", "prompt")


@dataclass(frozen=True, kw_only=True)
class Seen:
    """Where a picture lies."""

    recording: Recording
    channel: Channel
    place: tuple[int, ...]


@dataclass(kw_only=True)
class Tracks:
    """What was heard. topics: as the source's config has them; empty takes all that have a meaning
    by their type. stale: ns."""

    topics: "Mapping[str, RosTopic]"
    stale: int
    by_log: bool
    decode: Decoder = field(default_factory=Decoder)
    fields: dict[str, Track] = field(default_factory=dict)
    cameras: dict[str, Track] = field(default_factory=dict)
    depth: dict[str, Track] = field(default_factory=dict)
    words: dict[str, list[str]] = field(default_factory=dict)
    _joints: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._heard = 0
        self._named: dict[str, list[tuple[str, RosTopic]]] = {}
        for name, one in self.topics.items():
            self._named.setdefault(one.topic, []).append((name, one))

    def wants(self, topic: str) -> bool:
        return not self._named or topic in self._named

    def hear(self, recording: Recording) -> None:
        """All messages of a file. UnusableEpisode names the file and the topic."""
        for raw in recording.messages(self.wants):
            channel = raw.channel
            if not self._named and not _has_meaning(channel):
                continue
            try:
                message = self.decode(channel, raw.data)
                stamp = None if self.by_log else messages.stamp(message)
                time = (raw.log if self.by_log else raw.publish) if stamp is None else stamp
                if not 0 <= time < 1 << 62:
                    raise FoundryError(f"its time is {time} ns", "remove the episode")
                self._take(recording, raw, message, time)
                self._heard += 1
                if self._heard > _MAX_MESSAGES:
                    raise FoundryError(f"more than {_MAX_MESSAGES} messages", "name fewer topics")
            except FoundryError as error:
                about = "" if error.message.startswith(channel.topic) else f"{channel.topic}: "
                raise UnusableEpisode(
                    f"{recording.path}: {about}{error.message}", error.hint
                ) from error

    def _take(self, recording: Recording, raw: Raw, message: Any, time: int) -> None:
        channel = raw.channel
        named = self._named.get(channel.topic, ((channel.topic, None),))
        for name, one in named:
            path = one.path if one else None
            if path is None and channel.kind in messages.PICTURES:
                kind = self.depth if messages.is_depth(message) else self.cameras
                seen = Seen(recording=recording, channel=channel, place=raw.place)
                self._track(kind, name, channel.topic, one).add(time, seen)
            elif path is None and channel.kind == "String":
                self._hear_words(name if one else "original", messages.part(message, "data"))
            elif path is not None and isinstance(said := messages.part(message, path), str):
                self._hear_words(name, said)
            else:
                self._measure(name, one, channel, message, time)

    def _measure(
        self, name: str, one: "RosTopic | None", channel: Channel, message: Any, time: int
    ) -> None:
        if one and one.path is not None:
            parts: Mapping[str, str] = {"": one.path}
        else:
            parts = messages.default_parts(channel.kind)
        if not parts:
            raise FoundryError(
                f"what {channel.type or 'a message without a type'} holds is not known",
                "name a `path` in the message",
            )
        joints = channel.kind == "JointState" or bool(one and one.joints)
        for part, path in parts.items():
            full = f"{name}/{part}" if part else name
            if joints:
                values = self._by_joint(full, one, path, message)
            else:
                values = messages.numbers(messages.part(message, path))
            if values is None:
                continue
            track = self._track(self.fields, full, channel.topic, one)
            width = len(track.values[0]) if track.values else len(values)
            if len(values) != width:
                raise FoundryError(
                    f"{path!r} holds {len(values)} numbers, and {width} before",
                    "a field has the same number at each step",
                )
            track.add(time, values)

    def _by_joint(
        self, name: str, one: "RosTopic | None", path: str, message: Any
    ) -> np.ndarray | None:
        if one and one.joints:
            return messages.joint_numbers(message, path, one.joints)
        names = tuple(messages.part(message, "name"))
        joints = self._joints.setdefault(name, names)
        if set(joints) != set(names):
            raise FoundryError(
                f"its joints are {', '.join(joints)} and then {', '.join(names)}",
                "say which with `joints`",
            )
        return messages.joint_numbers(message, path, joints)

    def _hear_words(self, kind: str, said: Any) -> None:
        if not isinstance(said, str) or len(said) > _MAX_TEXT:
            raise FoundryError(
                f"it says a {type(said).__name__}, or more than {_MAX_TEXT} characters",
                "leave the topic out",
            )
        texts = self.words.setdefault(kind, [])
        if said and said not in texts:
            texts.append(said)

    def _track(
        self, kind: dict[str, Track], name: str, topic: str, one: "RosTopic | None"
    ) -> Track:
        if name not in kind:
            stale = self.stale if one is None or one.stale is None else round(one.stale * _NS)
            kind[name] = Track(name=name, topic=topic, stale=stale)
        return kind[name]

    def finish(self, where: str, clock: str, heard: "set[str]") -> list[Track]:
        """All tracks, sorted. heard: topics of the recording. UnusableEpisode where a topic that
        is named is not there or says nothing."""
        tracks = [*self.fields.values(), *self.cameras.values(), *self.depth.values()]
        said = {track.topic for track in tracks}
        names = {*self.words, *(track.name for track in tracks)}
        for name, one in self.topics.items():
            if one.topic not in heard:
                raise UnusableEpisode(
                    f"{where} has no topic {one.topic!r}", nearest(one.topic, heard)
                )
            if not any(known == name or known.startswith(f"{name}/") for known in names):
                raise UnusableEpisode(
                    f"{where}: {one.topic} says nothing for {name!r}", "remove it"
                )
        if not tracks:
            raise UnusableEpisode(
                f"{where} has no topic whose type has a meaning here",
                f"name some in `topics`: {', '.join(sorted(heard)[:20]) or 'it has none'}",
            )
        if clock and clock not in said:
            raise UnusableEpisode(f"{where} has no clock {clock!r}", nearest(clock, said))
        for track in tracks:
            track.sort()
        return tracks

    def frames(self, track: Track, ticks: np.ndarray, read: Callable[[Any], Any]) -> "Frames[Any]":
        """A camera's pictures at the ticks."""
        at = track.at(ticks)

        def fetch(step: int) -> Any:
            seen: Seen = track.values[at[step]]
            try:
                data = seen.recording.fetch(seen.place)
                return read(self.decode(seen.channel, data))
            except FoundryError as error:
                raise UnusableEpisode(
                    f"{seen.recording.path}: {track.topic} at step {step}: {error.message}",
                    error.hint,
                ) from error

        return Frames(len(ticks), fetch)


def _has_meaning(channel: Channel) -> bool:
    if channel.kind == "String":
        return any(word in channel.topic.rpartition("/")[2].lower() for word in _SPOKEN)
    return channel.kind in messages.PICTURES or bool(messages.default_parts(channel.kind))
