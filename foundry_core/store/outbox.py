"""The outbox: what a commit or a removal is going to tell the lineage, written before it happens.

The commit of an artifact is one rename, its events come after. A process killed in between would
leave an artifact that no table knows, and an attempt that runs forever. So the events are stored
first, with their ids and times, under the log's `outbox/`; whoever comes next publishes those whose
artifact is committed (or, of a removal, is gone). Publishing twice writes one event. Normally there
is nothing to list: one look per run.
"""

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import TypeAdapter

from foundry_core.errors import FoundryError
from foundry_core.lineage.event_types import (
    ArtifactCommitted,
    ArtifactRemoved,
    AttemptFinished,
    Event,
)
from foundry_core.lineage.events import EventLog, committed_identity, encode
from foundry_core.store.lease import is_dead, process_identity
from foundry_core.store.manifest import Artifact, Place

OUTBOX = "outbox"
_FORGOTTEN = timedelta(days=1)
# (type, data, id, time)
StoredEvent = tuple[str, Mapping[str, Any], str, str]


@dataclass(frozen=True, kw_only=True)
class OutboxEntry:
    """Events that wait for what they tell of. `created` tells the artifact from others of its key.
    if_dead: published once the owner is known to be dead, whatever is committed."""

    kind: str
    key: str
    events: Sequence[StoredEvent]
    created: str = ""
    removal: bool = False
    if_dead: bool = False
    owner: Mapping[str, Any] = field(default_factory=process_identity)
    token: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def name(self) -> str:
        return f"{OUTBOX}/{self.key[:16]}-{self.token}.json"

    def happened(self, committed: Artifact | None) -> bool:
        """Whether what the events tell of was done, by what is committed under the key now."""
        if self.if_dead:
            return is_dead(dict(self.owner))
        present = committed is not None and committed.created == self.created
        return present != self.removal

    def age(self) -> timedelta:
        return datetime.now(UTC) - datetime.fromisoformat(self.events[-1][3])


def enqueue(
    log: EventLog,
    artifact: Artifact,
    event: ArtifactCommitted,
    finished: AttemptFinished | None = None,
) -> OutboxEntry:
    """Stores the event of a commit, and that of the attempt which ends with it."""
    events: list[StoredEvent] = [(event.type, event.data(), *committed_identity(event.artifact))]
    if finished is not None:
        events.append(_happening(log, finished))
    entry = OutboxEntry(
        kind=artifact.kind, key=artifact.key, events=events, created=artifact.created
    )
    return _stored(log, entry)


def enqueue_removal(
    log: EventLog, kind: str, key: str, created: str, reason: str, run_id: str
) -> OutboxEntry:
    """Stores the event of a removal. created: '' when the artifact's manifest is damaged."""
    event = ArtifactRemoved(kind=kind, key=key, reason=reason, run_id=run_id)
    events = [_happening(log, event)]
    return _stored(
        log, OutboxEntry(kind=kind, key=key, events=events, created=created, removal=True)
    )


def enqueue_loss(log: EventLog, kind: str, key: str, finished: AttemptFinished) -> OutboxEntry:
    """Stores the end of an attempt whose process dies before it aborts this. Its time is now: what
    the attempt itself says later counts instead."""
    events = [_happening(log, finished)]
    return _stored(log, OutboxEntry(kind=kind, key=key, events=events, if_dead=True))


def _happening(log: EventLog, event: Event) -> StoredEvent:
    return event.type, event.data(), str(uuid.uuid4()), log.now()


def _stored(log: EventLog, entry: OutboxEntry) -> OutboxEntry:
    log.blobs.create(entry.name, encode(vars(entry)))
    return entry


def publish(log: EventLog, entry: OutboxEntry) -> None:
    """Appends the events, since what they tell of was done."""
    for event_type, data, event_id, at in entry.events:
        log.append_data(event_type, data, event_id=event_id, at=at)
    log.blobs.delete(entry.name)


def abort(log: EventLog, entry: OutboxEntry) -> None:
    """Drops the events, since what they tell of will not be done."""
    log.blobs.delete(entry.name)


def _entry(data: bytes) -> OutboxEntry:
    """ValueError for what is no entry, of an artifact that can be."""
    try:
        entry = TypeAdapter(OutboxEntry).validate_json(data)
        TypeAdapter(Place).validate_python({"kind": entry.kind, "key": entry.key})
        entry.age()
        is_dead(entry.owner)
    except (TypeError, KeyError, IndexError, RecursionError) as error:
        raise ValueError(f"no entry of an outbox: {error}") from None
    return entry


def publish_pending(log: EventLog, read: Callable[[str, str], Artifact | None]) -> list[str]:
    """Publishes what killed processes left; returns the keys. `read`: (kind, key) → what is
    committed. An entry that came to nothing goes once its process is known to be dead, or, of
    another host, after a day: nobody can tell whether that one lives, and if it does after all, it
    still publishes by itself."""
    published = []
    for base in log.blobs.names(OUTBOX):
        try:
            entry = _entry(log.blobs.read(f"{OUTBOX}/{base}"))
            committed = read(entry.kind, entry.key)
        except (FileNotFoundError, FoundryError, ValueError):
            # published by another, a damaged manifest that a run is going to replace, or no entry
            continue
        if entry.happened(committed):
            publish(log, entry)
            published.append(entry.key)
        elif not entry.if_dead and (is_dead(dict(entry.owner)) or entry.age() > _FORGOTTEN):
            abort(log, entry)
    return published
