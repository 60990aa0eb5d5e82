"""What the stages of a run are at, as a small file each in the run's folder: for who watches from
another process, sooner than the lineage's index can tell what became of them."""

import contextlib
import json
import time
from pathlib import Path
from typing import Any

from flows.runs.events import (
    RunEvent,
    RunObserver,
    StageFailedEvent,
    StageFinished,
    StageProgress,
    StageStarted,
)
from foundry_core.files import names_in, read_json, sha256_hex, write_atomic
from foundry_core.masking import mask_text

FOLDER = "progress"
_EVERY_SECONDS = 1.0
_MOST_BYTES = 64 * 1024


class ProgressFiles:
    """An observer that writes, and tells `onward`. A disk that takes nothing fails no run."""

    def __init__(self, run: Path, onward: RunObserver) -> None:
        """run: the folder of the run."""
        self._folder, self._onward = run / FOLDER, onward
        self._stages: dict[str, dict[str, Any]] = {}

    def __call__(self, event: RunEvent) -> None:
        match event:
            case StageStarted(name):
                self._write(name, {"stage": name, "since": time.time()})
            case StageProgress(name, state):
                self._progressed(name, dict(state))
            case StageFailedEvent(name, error, cancelled):
                ended = {"error": mask_text(error), "cancelled": cancelled}
                self._write(name, {"stage": name, **ended})
            case StageFinished(name, outcome):
                ended = {"action": outcome.action, "seconds": outcome.seconds}
                self._write(name, {"stage": name, "ended": ended})
        self._onward(event)

    def _progressed(self, name: str, state: dict[str, Any]) -> None:
        """At most once in a second, but for the first and the last step, and for what is waited
        for."""
        known = self._stages.get(name, {"stage": name})
        now = time.time()
        counts = "done" in state
        begins = counts and "done" not in known
        if counts and "first" not in known:
            known = {**known, "first": {"done": state["done"], "at": now}}
        waits = not counts and state.get("message") != known.get("message")
        last = counts and state["done"] >= state.get("total", 0)
        self._stages[name] = known
        if waits or begins or last or now - known.get("at", 0.0) >= _EVERY_SECONDS:
            self._write(name, {**known, "values": {}, **state, "at": now})

    def _write(self, name: str, state: dict[str, Any]) -> None:
        self._stages[name] = state
        with contextlib.suppress(OSError):
            write_atomic(self._path(name), json.dumps(state), durable=False)

    def _path(self, name: str) -> Path:
        """Stages of an ablation have names that are no file's."""
        return self._folder / f"{sha256_hex(name)[:16]}.json"


def progress_of(run: Path) -> dict[str, dict[str, Any]]:
    """Stage → what it is at: since, first {done, at}, done, total, message, values, at; or error,
    cancelled; or ended {action, seconds}. Each may be missing. Times are seconds since 1970. Files
    that cannot be read are left out."""
    found = {}
    for name in names_in(run / FOLDER):
        path = run / FOLDER / name
        with contextlib.suppress(OSError, ValueError, RecursionError):
            if path.stat().st_size > _MOST_BYTES:
                continue
            state = read_json(path)
            if isinstance(state, dict) and isinstance(state.get("stage"), str):
                found[state["stage"]] = state
    return found


def stamp_of(run: Path) -> tuple[tuple[str, int], ...]:
    """Moves when any of these files does."""
    found = []
    for name in names_in(run / FOLDER):
        with contextlib.suppress(OSError):
            found.append((name, (run / FOLDER / name).stat().st_mtime_ns))
    return tuple(found)
