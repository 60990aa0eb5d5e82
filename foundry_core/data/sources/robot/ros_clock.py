"""Topics of different rates on one clock: each tick takes the last message that is not newer."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from foundry_core.data.contract.rates import rates_agree
from foundry_core.data.robot.episodes import UnusableEpisode

_NS = 10**9
_OVERTAKEN = _NS
_MAX_TICKS = 1_000_000


@dataclass(kw_only=True)
class Track:
    """What one topic says, message by message. stamps: ns. stale: ns for which a value holds."""

    name: str
    topic: str
    stale: int
    stamps: list[int] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)

    def add(self, stamp: int, value: Any) -> None:
        self.stamps.append(stamp)
        self.values.append(value)

    def sort(self) -> None:
        """By stamp; of equal ones the later message is last. UnusableEpisode where stamps go back
        farther than messages overtake each other: two recordings would become one."""
        stamps = np.array(self.stamps, np.int64)
        back = np.maximum.accumulate(stamps) - stamps
        if (back > _OVERTAKEN).any():
            message = int(np.argmax(back > _OVERTAKEN))
            raise UnusableEpisode(
                f"{self.topic} goes back by {back[message] / _NS:.3f} s at message {message}",
                "its clock was set while it was recorded: cut the recording there, or take `time: "
                "log`",
            )
        order = np.argsort(stamps, kind="stable")
        self.stamps = [self.stamps[i] for i in order]
        self.values = [self.values[i] for i in order]

    def at(self, ticks: np.ndarray) -> np.ndarray:
        """Index of the value that holds at each tick. UnusableEpisode where none does."""
        stamps = np.array(self.stamps, np.int64)
        last = np.searchsorted(stamps, ticks, side="right") - 1
        age = ticks - stamps[last]
        if (age > self.stale).any():
            tick = int(np.argmax(age > self.stale))
            raise UnusableEpisode(
                f"{self.topic} says nothing for {age[tick] / _NS:.3f} s, "
                f"{(ticks[tick] - ticks[0]) / _NS:.3f} s into the episode",
                f"raise stale ({self.stale / _NS:g} s) if its values hold for so long",
            )
        return last


def ticks(tracks: Sequence[Track], hz: float, clock: str) -> np.ndarray:
    """int64 [L], ns: from where every sorted track has begun to where the first one ends, at `hz`,
    or at the stamps of the topic `clock`. UnusableEpisode where there is no such time."""
    late = max(tracks, key=lambda track: track.stamps[0])
    early = min(tracks, key=lambda track: track.stamps[-1] + track.stale)
    start = late.stamps[0]
    end = min(early.stamps[-1] + early.stale, max(track.stamps[-1] for track in tracks))
    if end < start:
        raise UnusableEpisode(
            f"{late.topic} begins {(start - early.stamps[-1]) / _NS:.3f} s after {early.topic} has "
            "ended",
            "leave one of them out, or set its `stale`",
        )
    if clock:
        stamps = np.array(next(t.stamps for t in tracks if t.topic == clock), np.int64)
        found = np.unique(stamps[(stamps >= start) & (stamps <= end)])
        _check_rate(found, hz, clock)
        return found
    count = (end - start) / _NS * hz
    if count > _MAX_TICKS:
        raise UnusableEpisode(
            f"{count:.0f} steps at {hz:g} Hz, at most {_MAX_TICKS} are read",
            "look for a time stamp that is wrong, or cut the recording",
        )
    return start + np.rint(np.arange(int(count) + 1) * (_NS / hz)).astype(np.int64)


def _check_rate(found: np.ndarray, hz: float, clock: str) -> None:
    if not len(found):
        raise UnusableEpisode(
            f"{clock} says nothing while all topics do", "take another clock, or none"
        )
    if len(found) > 1:
        rate = (len(found) - 1) * _NS / int(found[-1] - found[0])
        if not rates_agree(rate, hz):
            raise UnusableEpisode(
                f"{clock} ticks at {rate:.2f} Hz, hz is {hz:g}", "set hz to the rate of the clock"
            )
