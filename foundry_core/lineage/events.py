"""What happened, as immutable facts, and the log that keeps them.

An event is written once and never changed. Tables are projections of the SET of events (per entity
the latest (time, id) decides), so neither arrival order nor duplicates can change an answer.
Importing this module costs milliseconds: no duckdb, no pydantic.

    <events>/<yyyy-mm-dd>/<time ns>-<uuid>.json      one event
    <events>/segments/<first ns>-<last ns>-<digest>-<count>.parquet   many old ones, compacted
    <events>/blobs/<sha256>                          bulk that repeats: package lists, git diffs
    <events>/outbox/<id>.json                        events of commits under way

History is chained, a chain per writer (an `EventLog` of a process): each event names the digest of
its writer's event before, and a writer's first one that of the newest event it found in the log.
`foundry_core.lineage.chain` walks the chains.
"""

import contextlib
import json
import math
import os
import re
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundry_core.blobs import Blobs, open_blobs
from foundry_core.files import encodable, json_line, sha256_hex

if TYPE_CHECKING:  # 7 ms of every plan, which tells nothing
    from foundry_core.lineage.event_types import Event

SCHEMA = 1
SEGMENTS = "segments"
BLOBS = "blobs"
# Whatever else lies there (a file manager's, a half copied one) is no event.
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_EVENT = re.compile(r"\d{19}-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.json")
_SEGMENT = re.compile(r"\d{19}-\d{19}-[0-9a-f]{16}(-\d+)?\.parquet")
_CLOCK_TRUST_SECONDS = 86_400
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(kw_only=True)
class _Writer:
    """The chain of one writer. number, previous: of its next event, and the digest of its last.
    after: the newest event of the log when it began, {id, sha256}."""

    name: str = field(default_factory=lambda: os.urandom(8).hex())
    pid: int = field(default_factory=os.getpid)
    number: int = 0
    previous: str = ""
    after: Mapping[str, str] | None = None

    def link(self) -> dict[str, Any]:
        """What its next event says of its place."""
        link = {"writer": self.name, "number": self.number, "previous": self.previous}
        return link | ({"after": self.after} if self.after and not self.number else {})


class EventLog:
    """Events below a folder or an object store's prefix, append-only. Any number of processes may
    append to and read one log."""

    def __init__(self, root: str | Path | Blobs) -> None:
        self.blobs: Blobs = open_blobs(str(root)) if isinstance(root, str | Path) else root
        self._last: int | None = None
        self._lock = threading.RLock()
        self._writer: _Writer | None = None
        self._group: list[tuple[str, dict[str, Any]]] | None = None

    def append(self, event: "Event", *, event_id: str | None = None, at: str | None = None) -> str:
        """Writes one event durably; returns its name below the log's root.

        `event_id` and `at` (UTC ISO) are for what may be published twice: the same id at the same
        time is written once.
        """
        return self.append_data(event.type, event.data(), event_id=event_id, at=at)

    def append_data(
        self,
        event_type: str,
        data: Mapping[str, Any],
        *,
        event_id: str | None = None,
        at: str | None = None,
    ) -> str:
        """An event that was kept as type and data: what an outbox publishes."""
        unique, moment = event_id or str(uuid.uuid4()), at or iso_time(self._now())
        event = {
            "schema": SCHEMA,
            "id": unique,
            "time": moment,
            "type": event_type,
            "run_id": data.get("run_id") or (data.get("artifact") or {}).get("run_id"),
            "data": self._detach(dict(data)),
        }
        name = event_name(moment, unique)
        with self._lock:
            # What may be there already ends a chain's certainty: it is written by itself.
            if self._group is not None and event_id is None:
                self._group.append((name, event))
            else:
                self._write_group()
                self._write([(name, event)])
        return name

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Events appended to this log inside the block are written at its end, in order, whether it
        raises or not: for many at once, each of which would wait for the disk."""
        with self._lock:
            outermost = self._group is None
            if outermost:
                self._group = []
        try:
            yield
        finally:
            if outermost:
                with self._lock:
                    try:
                        self._write_group()
                    finally:
                        self._group = None

    def _write_group(self) -> None:
        if self._group:
            waiting = list(self._group)
            self._group.clear()
            self._write(waiting)

    def _write(self, events: Sequence[tuple[str, dict[str, Any]]]) -> None:
        """One, or several whose names nobody else can have. Of a write that fails nobody knows what
        it left: the next event begins another chain."""
        writer, self._writer = self._writer, None
        if writer is None or writer.pid != os.getpid():
            writer = _Writer(after=self._head())
        number, previous = writer.number, writer.previous
        encoded: list[tuple[str, bytes]] = []
        for name, event in events:
            encoded.append((name, encode(event | {"chain": writer.link()})))
            writer.number, writer.previous = writer.number + 1, sha256_hex(encoded[-1][1])
        if not all(self.blobs.create_all(encoded)):  # the one that is there is another writer's
            writer.number, writer.previous = number, previous
        self._writer = writer

    def _head(self) -> dict[str, str] | None:
        """The newest event, by id and digest; None when there is none that is not compacted."""
        for day in reversed(self._days()):
            for name in reversed(self._of_day(day)):
                with contextlib.suppress(FileNotFoundError):
                    return {"id": event_id(name), "sha256": sha256_hex(self.blobs.read(name))}
        return None

    def now(self) -> str:
        """The time (UTC ISO) of what happens now: after all that the log holds, so that what a host
        does under the lease of a key outlasts what one with a faster clock did under it before."""
        if self._last is not None:
            self._last = max(self._last, self._newest())
        return iso_time(self._now())

    def loose(self) -> list[str]:
        """Names of the events that are not compacted, oldest first."""
        return [name for day in self._days() for name in self._of_day(day)]

    def _days(self) -> list[str]:
        return [name for name in self.blobs.names("") if _DAY.fullmatch(name)]

    def _of_day(self, day: str) -> list[str]:
        return [f"{day}/{name}" for name in self.blobs.names(day) if _EVENT.fullmatch(name)]

    def segments(self) -> list[str]:
        """Names of the compacted files, oldest first."""
        names = self.blobs.names(SEGMENTS)
        return [f"{SEGMENTS}/{name}" for name in names if _SEGMENT.fullmatch(name)]

    def read(self, name: str) -> dict[str, Any]:
        """Raises FileNotFoundError (compacted meanwhile) or ValueError (damaged)."""
        data = self.blobs.read(name)
        try:
            event = json.loads(data)
        except RecursionError:
            event = None
        # Text that is no UTF-8 can only come in by an escape, which no writer of ours uses.
        odd = b"\\ud" in data.lower() and not encodable(json_line(event))
        if odd or not _is_event(event, name):
            raise ValueError(f"{name} is not an event")
        return event

    def put_blob(self, data: bytes) -> str:
        """Stores bytes once; returns their sha256, which names them."""
        digest = sha256_hex(data)
        self.blobs.create(f"{BLOBS}/{digest}", data)
        return digest

    def blob(self, digest: str) -> bytes:
        """Raises FileNotFoundError."""
        return self.blobs.read(f"{BLOBS}/{digest}")

    def _now(self) -> int:
        """Microseconds since 1970, after every event already seen, though the wall clock may have
        been set back: of two facts about one key the later one decides."""
        if self._last is None:
            self._last = self._newest()
        now = time.time_ns() // 1000
        if self._last - now > _CLOCK_TRUST_SECONDS * 1_000_000:
            self._last = now  # another host's clock is days ahead: do not follow it
        self._last = max(now, self._last + 1)
        return self._last

    def _newest(self) -> int:
        ends = [int(name.split("-")[1]) for name in self.segments()]
        for day in reversed(self._days()):
            names = self._of_day(day)
            if names:
                ends.append(nanoseconds(names[-1]))
                break
        return max(ends, default=0) // 1000

    def _detach(self, data: dict[str, Any]) -> dict[str, Any]:
        """Moves package lists and diffs, which repeat in every attempt, into blobs."""
        if data.get("git"):
            data = data | {"git": self._detach_diff(data["git"])}
        if data.get("artifact"):
            data = data | {"artifact": self._detach(dict(data["artifact"]))}
        if not data.get("provenance"):
            return data
        provenance = dict(data["provenance"])
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
    """UTC ISO of microseconds since 1970."""
    moment = _EPOCH + timedelta(microseconds=microseconds)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def event_name(iso: str, event_id: str) -> str:
    """<yyyy-mm-dd>/<time ns>-<id>.json, so that names sort by time (until the year 2286)."""
    nanoseconds = (datetime.fromisoformat(iso) - _EPOCH) // timedelta(microseconds=1) * 1000
    return f"{iso[:10]}/{nanoseconds:019d}-{event_id}.json"


def nanoseconds(name: str) -> int:
    """The time in an event's name."""
    return int(name.rpartition("/")[2].partition("-")[0])


def _is_event(event: Any, name: str) -> bool:
    """Whether it says what every event says, and is the one of this name."""
    try:
        named = event_name(event["time"], event["id"]) == name
        run = isinstance(event.get("run_id"), str | None)
        return named and run and isinstance(event["data"], dict) and isinstance(event["type"], str)
    except (KeyError, TypeError, ValueError):
        return False


def committed_identity(manifest: Mapping[str, Any]) -> tuple[str, str]:
    """(id, time) of the event of a commit: functions of its artifact.json, so that whoever
    publishes it, and however often, writes one event."""
    identity = "/".join(str(manifest.get(name)) for name in ("key", "content", "created"))
    created = datetime.fromisoformat(manifest["created"]).timestamp()
    unique = uuid.uuid5(uuid.NAMESPACE_URL, f"foundry:committed:{identity}")
    return str(unique), iso_time(round(created * 1e6))


def event_id(name: str) -> str:
    """The id in an event's name."""
    return name.rpartition("/")[2].partition("-")[2].removesuffix(".json")


def encode(value: Any) -> bytes:
    """A line of JSON. Numbers that JSON lacks (a loss that diverged) become "NaN", "Infinity"."""
    try:
        return json_line(value).encode()
    except ValueError:
        return json_line(_spell_numbers(value)).encode()


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
