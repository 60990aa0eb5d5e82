"""The curves of a run's trainings: of what is committed, and of what goes on, as far as its rows
lie on this machine's disks."""

import json
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import duckdb

from flows.live.lineage import opened
from flows.live.stages import is_gone, known_run
from flows.reports.curves import recorded_curves, stage_curves
from foundry_core.errors import FoundryError
from foundry_core.evaluation.comparison.report import Curves
from foundry_core.lineage.records import METRICS, VALIDATION
from foundry_core.store.manifest import is_key

Json = dict[str, Any]
_KEPT = 600
# Of a file that grows, at a time, and how many at most for one answer.
_PIECE, _PIECES = 2**20, 32
_PICTURES = 40


def curves_answer(connection: duckdb.DuckDBPyConnection, run_id: str, tails: "Tails") -> Json:
    """curves: {stage, title, live, series: [{name, points: [[step, value], ...]}]}, in the order of
    the stages."""
    run = known_run(connection, run_id)
    at_work = run["status"] == "running" and not is_gone(run_id)
    found = []
    for stage in run["stages"]:
        name, key = stage["stage"], stage["artifact_key"] or stage["key"]
        pictures: Mapping[str, Curves] = {}
        live = at_work and stage["resolved_at"] is None
        if live:
            pictures = tails.curves(name, key)
        elif stage["resolved_at"] is not None and stage["kind"]:
            try:
                pictures = _committed(stage["kind"], key, name)
            except (FoundryError, OSError):
                continue  # gone, or out of reach for now
        found += [
            {"stage": name, "title": title, "live": live, "series": _plain(series)}
            for title, series in pictures.items()
        ]
    return {"curves": found[:_PICTURES], "more": len(found) > _PICTURES}


def _plain(series: Curves) -> list[Json]:
    return [{"name": name, "points": list(map(list, points))} for name, points in series.items()]


@lru_cache(maxsize=200)
def _committed(kind: str, key: str, name: str) -> Mapping[str, Curves]:
    store = opened()
    artifact = store.read(kind, key)
    if artifact is None:
        raise FoundryError(f"{kind}/{key[:12]} is not in the store")
    # Of what has no such record nothing is fetched.
    if METRICS not in {file.path for file in artifact.files}:
        return {}
    return recorded_curves(store, artifact, name)


class Tails:
    """What trainings under way have written so far, each file read on from where it was."""

    def __init__(self) -> None:
        self._tails: dict[Path, _Tail] = {}

    def curves(self, name: str, key: str) -> Mapping[str, Curves]:
        """See `stage_curves`."""
        if not is_key(key):
            return {}
        scratch = opened().scratch(key)
        lines, held_out = (
            self._tail(scratch / Path(record).name).rows() for record in (METRICS, VALIDATION)
        )
        return stage_curves(name, lines, held_out)

    def stamp(self) -> tuple[tuple[str, int], ...]:
        """Moves when one of the files does that were asked for."""
        return tuple((str(path), _size(path)) for path in self._tails)

    def _tail(self, path: Path) -> "_Tail":
        if len(self._tails) > 200:  # of runs that nobody watches any more
            self._tails.clear()
        return self._tails.setdefault(path, _Tail(path))


class _Tail:
    """Rows of a file of JSON lines that grows: some hundred, evenly spaced, and the last one. A
    line that is not whole is left for the next time, one that is no row is passed over."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._begin()

    def _begin(self) -> None:
        self._inode, self._at, self._seen, self._every = -1, 0, 0, 1
        self._rows: list[Json] = []
        self._last: list[Json] = []

    def rows(self) -> list[Json]:
        try:
            # What is put in the place of such a file (a pipe) would hold the page for ever.
            if not self._path.is_file():
                raise FileNotFoundError
            handle = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        except OSError:
            self._begin()
            return []
        with open(handle, "rb") as stream:
            stat = os.fstat(stream.fileno())
            if stat.st_ino != self._inode or stat.st_size < self._at:
                self._begin()  # cut back to a checkpoint, or another attempt's
                self._inode = stat.st_ino
            stream.seek(self._at)
            for _ in range(_PIECES):
                whole = self._read_on(stream.read(_PIECE))
                if whole < _PIECE // 2:
                    break
                stream.seek(self._at)
        return [*self._rows, *(row for row in self._last if row not in self._rows[-1:])]

    def _read_on(self, data: bytes) -> int:
        """How many of the bytes were whole lines."""
        whole = data.rfind(b"\n") + 1
        self._at += whole
        for line in data[:whole].splitlines():
            self._take(line)
        return whole

    def _take(self, line: bytes) -> None:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            return
        if not isinstance(row, dict) or type(row.get("step")) is not int:
            return
        row = {name: one for name, one in row.items() if isinstance(one, int | float)}
        if self._seen % self._every == 0:
            self._rows.append(row)
        self._seen += 1
        self._last = [row]
        if len(self._rows) > _KEPT:
            self._rows, self._every = self._rows[::2], 2 * self._every


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
