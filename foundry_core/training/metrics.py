"""metrics.jsonl: deterministic values only, continued exactly after a kill.

The log lives in scratch while the run goes on. A checkpoint remembers how many bytes were written
and the sums of the unfinished window; resuming cuts the file there, so that an interrupted run
leaves the same bytes as an uninterrupted one.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

from foundry_core.files import json_line


class LogState(TypedDict):
    """What resumes a log: the file's length, the unfinished window, the last row; and the rows
    where the file may not be there."""

    bytes: int
    sums: dict[str, float]
    shares: dict[str, list[float]]
    steps: int
    last: dict[str, float]
    rows: str | None


class MetricsLog:
    """Rows of means over the steps since the previous row. last: the latest one, without its
    step."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._stream = path.open("ab")
        self._sums: dict[str, float] = {}
        self._shares: dict[str, list[float]] = {}
        self._steps = 0
        self.last: dict[str, float] = {}

    def add(
        self, values: Mapping[str, float], shares: Mapping[str, tuple[float, float]] | None = None
    ) -> None:
        """The values of one step. shares: sums and how many elements they are of; a row has the
        mean over the elements of its steps, where there were any."""
        for name, (total, count) in (shares or {}).items():
            before = self._shares.get(name, [0.0, 0.0])
            self._shares[name] = [before[0] + total, before[1] + count]
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._steps += 1

    def write_row(self, step: int, **now: float) -> dict[str, float]:
        """Closes the window after `step` completed steps and returns its row without the step; {}
        where the window is empty. now: values that are not averaged."""
        if not self._steps:
            return {}
        means = {name: total / self._steps for name, total in self._sums.items()}
        parts = {name: total / count for name, (total, count) in self._shares.items() if count}
        self.last = {**means, **parts, **now}
        self._stream.write(json_line({"step": step, **self.last}).encode())
        self._stream.flush()
        self._sums, self._shares, self._steps = {}, {}, 0
        return self.last

    def state(self, *, rows: bool = False) -> LogState:
        """What resumes the log right here; the bytes are on the disk when this returns. rows: on
        another host, too."""
        self._stream.flush()
        os.fsync(self._stream.fileno())
        return {
            "bytes": self._stream.tell(),
            "sums": self._sums,
            "shares": self._shares,
            "steps": self._steps,
            "last": self.last,
            "rows": self._path.read_text() if rows else None,
        }

    def restore(self, state: LogState | None) -> None:
        """Continues from `state`, or from nothing."""
        if state and state["rows"] is not None:
            self._stream.truncate(0)
            self._stream.write(state["rows"].encode())
            self._stream.flush()
        self._stream.truncate(state["bytes"] if state else 0)
        self._stream.seek(0, os.SEEK_END)
        self._sums = dict(state["sums"]) if state else {}
        self._shares = dict(state.get("shares", {})) if state else {}
        self._steps = state["steps"] if state else 0
        self.last = dict(state["last"]) if state else {}

    def close(self) -> None:
        self._stream.close()
