"""What happened, as immutable facts, and the log that keeps them.

An event is written once and never changed. Tables are folds over the SET of events (per entity the
latest (time, id) stands), so neither arrival order nor duplicates can change an answer. Importing
this module costs milliseconds: no duckdb, no pydantic.

    <events>/<yyyy-mm-dd>/<time ns>-<uuid>.json      one event
    <events>/segments/<first ns>-<last ns>-<digest>.parquet   many old ones, compacted
    <events>/blobs/<sha256>                          bulk that repeats: package lists, git diffs
"""

import hashlib
import json
import math
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, Literal

from foundry_core.lineage.files import Files, open_files

SCHEMA = 1
SEGMENTS = "segments"
BLOBS = "blobs"
_CLOCK_TRUST_SECONDS = 86_400
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Event:
    """Base of all events. `id` and `time` (UTC ISO, microseconds) are stamped by the log."""

    TYPE: ClassVar[str]
    id: str = ""
    time: str = ""

    def data(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _STAMP}

    def to_json(self) -> dict[str, Any]:
        data = self.data()
        return {
            "schema": SCHEMA,
            "id": self.id,
            "time": self.time,
            "type": self.TYPE,
            "run_id": data.get("run_id"),
            "data": data,
        }


_STAMP = ("id", "time")


@dataclass(frozen=True, kw_only=True)
class RunStarted(Event):
    """A run and its plan. overrides: [[path, value], ...]; ablation: {"id", "variant"};
    git: {"commit", "dirty", "diff_digest"}; stages: {"name", "kind", "key", "action", "reasons",
    "recipe", "resources", "seed", "code", "sources", "inputs": [{"slot", "label", "stage", "key"}]}
    and, where known, "closure" and "baseline"."""

    TYPE: ClassVar[str] = "run_started"
    run_id: str
    pipeline: str
    stages: Sequence[Mapping[str, Any]]
    overrides: Sequence[Sequence[Any]] = ()
    argv: Sequence[str] = ()
    parent: str | None = None
    ablation: Mapping[str, Any] | None = None
    baseline: str | None = None
    prefect_flow_run_id: str | None = None
    host: str = ""
    git: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StageResolved(Event):
    """What became of a planned stage once its inputs were known. artifact_key: what stands for the
    stage in this run (another key than `key` after a cut-off)."""

    TYPE: ClassVar[str] = "stage_resolved"
    run_id: str
    stage: str
    key: str
    action: Literal["reuse", "run", "blocked"]
    artifact_key: str | None = None
    reasons: Sequence[Mapping[str, Any]] = ()
    how: Literal["recipe", "content", "linked"] | None = None


@dataclass(frozen=True, kw_only=True)
class AttemptStarted(Event):
    """provenance: see `foundry_core.lineage.provenance.collect_provenance`."""

    TYPE: ClassVar[str] = "attempt_started"
    key: str
    kind: str
    attempt: str
    run_id: str
    stage: str
    host: str = ""
    pid: int | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    prefect: Mapping[str, Any] | None = None
    ray: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class AttemptFinished(Event):
    TYPE: ClassVar[str] = "attempt_finished"
    key: str
    attempt: str
    run_id: str
    state: Literal["committed", "discarded", "failed", "interrupted", "lost"]
    error: str | None = None
    seconds: float | None = None
    cpu_seconds: float | None = None
    gpu_seconds: float | None = None
    peak_memory: int | None = None
    resumed_from_step: int | None = None


@dataclass(frozen=True, kw_only=True)
class ArtifactCommitted(Event):
    """artifact: the content of artifact.json. metric_rows: {"step", "name", "value"};
    episode_rows: {"task", "scenario", "success", "steps", "crash", "seed"}."""

    TYPE: ClassVar[str] = "artifact_committed"
    artifact: Mapping[str, Any]
    metric_rows: Sequence[Mapping[str, Any]] = ()
    episode_rows: Sequence[Mapping[str, Any]] = ()

    def to_json(self) -> dict[str, Any]:
        return super().to_json() | {"run_id": self.artifact.get("run_id")}


@dataclass(frozen=True, kw_only=True)
class ArtifactRemoved(Event):
    """Gone from the store (gc, corrupt, forced, missing). What it was stays known."""

    TYPE: ClassVar[str] = "artifact_removed"
    kind: str
    key: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class AliasSet(Event):
    """alias: `name@tag`. key None takes the alias away."""

    TYPE: ClassVar[str] = "alias_set"
    alias: str
    key: str | None


@dataclass(frozen=True, kw_only=True)
class RunFinished(Event):
    TYPE: ClassVar[str] = "run_finished"
    run_id: str
    status: Literal["succeeded", "failed", "interrupted", "cancelled"]
    seconds: float | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class AblationStarted(Event):
    """variants: {"variant", "overrides": [[path, value], ...]}; seeds: the list of them."""

    TYPE: ClassVar[str] = "ablation_started"
    ablation_id: str
    base_pipeline: str
    variants: Sequence[Mapping[str, Any]]
    vary: Mapping[str, Any] = field(default_factory=dict)
    seeds: Sequence[int] = ()


@dataclass(frozen=True, kw_only=True)
class AblationFinished(Event):
    """effects: {"variant", "path", "old", "new", "success", "n", "low", "high", "decision",
    "p_value", "letters"}, one row per variant and changed path; success is a rate."""

    TYPE: ClassVar[str] = "ablation_finished"
    ablation_id: str
    status: str = "succeeded"
    comparison_key: str | None = None
    effects: Sequence[Mapping[str, Any]] = ()


class EventLog:
    """Append-only. Any number of processes may append to and read one log."""

    def __init__(self, root: str | Path | Files) -> None:
        self.files: Files = open_files(str(root)) if isinstance(root, str | Path) else root
        self._last: int | None = None

    def append(self, event: Event) -> str:
        """Writes the event durably; returns its name below the log's root.

        An event that has an id already is written under it once: appending it again is a no-op.
        """
        if not event.time:
            event = replace(event, time=iso_time(self._now()))
        if not event.id:
            event = replace(event, id=str(uuid.uuid4()))
        content = event.to_json()
        content["data"] = self._detach(content["data"])
        name = event_name(event.time, event.id)
        self.files.create(name, encode(content))
        return name

    def loose(self) -> list[str]:
        """Names of the events that are not compacted, oldest first."""
        found = []
        for day in self.files.names(""):
            if day[:1].isdigit():
                found += [f"{day}/{n}" for n in self.files.names(day) if n.endswith(".json")]
        return found

    def segments(self) -> list[str]:
        names = self.files.names(SEGMENTS)
        return [f"{SEGMENTS}/{name}" for name in names if name.endswith(".parquet")]

    def read(self, name: str) -> dict[str, Any]:
        """Raises FileNotFoundError (compacted meanwhile) or ValueError (damaged)."""
        event = json.loads(self.files.read(name))
        if not isinstance(event, dict) or not event.keys() >= {"id", "time", "type", "data"}:
            raise ValueError(f"{name} is not an event")
        return event

    def put_blob(self, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        self.files.create(f"{BLOBS}/{digest}", data)
        return digest

    def blob(self, digest: str) -> bytes:
        return self.files.read(f"{BLOBS}/{digest}")

    def _now(self) -> int:
        """Microseconds since 1970, after every event already seen, though the wall clock may have
        been set back: order decides which of two facts about one key stands."""
        if self._last is None:
            self._last = self._newest()
        now = time.time_ns() // 1000
        if self._last - now > _CLOCK_TRUST_SECONDS * 1_000_000:
            self._last = now  # another host's clock is days ahead: do not follow it
        self._last = max(now, self._last + 1)
        return self._last

    def _newest(self) -> int:
        ends = [int(name.split("-")[1]) for name in self.files.names(SEGMENTS)]
        days = [day for day in self.files.names("") if day[:1].isdigit()]
        for day in reversed(days):
            names = self.files.names(day)
            if names:
                ends.append(int(names[-1].split("-")[0]))
                break
        return max(ends, default=0) // 1000

    def _detach(self, data: dict[str, Any]) -> dict[str, Any]:
        """Moves package lists and diffs, which repeat in every attempt, into blobs."""
        if data.get("git", {}).get("diff"):
            data = data | {"git": self._detach_diff(data["git"])}
        provenance = data.get("provenance")
        if not provenance:
            return data
        provenance = dict(provenance)
        if "packages" in provenance:
            packages = provenance.pop("packages")
            provenance["packages_digest"] = self.put_blob(encode(packages))
        if provenance.get("git"):
            provenance["git"] = self._detach_diff(provenance["git"])
        return data | {"provenance": provenance}

    def _detach_diff(self, git: Mapping[str, Any]) -> dict[str, Any]:
        rest = {name: value for name, value in git.items() if name != "diff"}
        if git.get("diff"):
            rest["diff_digest"] = self.put_blob(git["diff"].encode())
        return rest


def iso_time(microseconds: int) -> str:
    moment = _EPOCH + timedelta(microseconds=microseconds)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def event_name(iso: str, event_id: str) -> str:
    """<yyyy-mm-dd>/<time ns>-<id>.json, so that names sort by time (until the year 2286)."""
    nanoseconds = (datetime.fromisoformat(iso) - _EPOCH) // timedelta(microseconds=1) * 1000
    return f"{iso[:10]}/{nanoseconds:019d}-{event_id}.json"


def encode(value: Any) -> bytes:
    """Compact JSON. Numbers that JSON lacks (a loss that diverged) become "NaN", "Infinity"."""
    try:
        text = _dumps(value)
    except ValueError:
        text = _dumps(_spell_numbers(value))
    return f"{text}\n".encode()


def _dumps(value: Any) -> str:
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def _spell_numbers(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        if math.isnan(value):
            return "NaN"
        return "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {key: _spell_numbers(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_spell_numbers(item) for item in value]
    return value


def metric_rows(path: Path) -> Iterator[dict[str, Any]]:
    """records/metrics.jsonl ({"step": int, name: number, ...} per line) as event rows; a missing
    file has none."""
    for line in _json_lines(path):
        step = line.pop("step", None)
        for name, value in line.items():
            if isinstance(value, int | float):
                yield {"step": step, "name": name, "value": float(value)}


def episode_rows(path: Path) -> Iterator[dict[str, Any]]:
    """records/episodes.jsonl as event rows; a missing file has none."""
    columns = ("task", "scenario", "success", "steps", "crash", "seed")
    for line in _json_lines(path):
        yield {column: line.get(column) for column in columns}


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    if path.is_file():
        with path.open() as stream:
            for line in stream:
                if line.strip():
                    yield json.loads(line)
