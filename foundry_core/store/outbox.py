"""Intents: what a commit or a removal is going to tell the lineage, written before it happens.

The commit of an artifact is one rename, its events come after. A process killed in between would
leave an artifact that no table knows, and an attempt that runs forever. So the events are stored
first, with their ids and times, under the log's `intents/`; whoever comes next tells those whose
artifact stands (or, of a removal, no longer stands). Telling twice writes one event. Normally there
is nothing to list: one look per run.
"""

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from foundry_core.errors import FoundryError
from foundry_core.lineage.events import EventLog, committed_identity, encode
from foundry_core.store.lease import is_dead, process_identity
from foundry_core.store.manifest import Artifact

INTENTS = "intents"
_FORGOTTEN = timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class Intent:
    """events: (type, data, id, time). `created` tells the artifact from others of its key.
    if_dead: told once the owner is known to be dead, whatever stands."""

    name: str
    kind: str
    key: str
    created: str
    owner: Mapping[str, Any]
    events: Sequence[tuple[str, Mapping[str, Any], str, str]]
    removal: bool = False
    if_dead: bool = False

    def happened(self, standing: Artifact | None) -> bool:
        """Whether what was intended was done, by what stands under the key now."""
        if self.if_dead:
            return is_dead(dict(self.owner))
        stands = standing is not None and standing.created == self.created
        return stands != self.removal

    def age(self) -> timedelta:
        return datetime.now(UTC) - datetime.fromisoformat(self.events[-1][3])


def announce(
    log: EventLog,
    artifact: Artifact,
    rows: Mapping[str, Any],
    finished: Mapping[str, Any] | None = None,
) -> Intent:
    """Writes the intent of a commit. finished: the attempt_finished to tell with it."""
    manifest = artifact.to_json()
    committed = ("artifact_committed", {"artifact": manifest} | rows, *committed_identity(manifest))
    events = [committed]
    if finished is not None:
        events.append(("attempt_finished", finished, str(uuid.uuid4()), log.now()))
    return _written(log, artifact.kind, artifact.key, artifact.created, events)


def announce_removal(
    log: EventLog, kind: str, key: str, created: str, reason: str, run_id: str
) -> Intent:
    """Writes the intent of taking an artifact away. created: '' when its manifest is damaged."""
    data = {"kind": kind, "key": key, "reason": reason, "run_id": run_id}
    removed = ("artifact_removed", data, str(uuid.uuid4()), log.now())
    return _written(log, kind, key, created, [removed], removal=True)


def announce_loss(log: EventLog, kind: str, key: str, finished: Mapping[str, Any]) -> Intent:
    """Writes what is told of an attempt whose process dies before it withdraws this. Its time is
    now: whatever the attempt itself tells later stands."""
    lost = ("attempt_finished", finished, str(uuid.uuid4()), log.now())
    return _written(log, kind, key, "", [lost], if_dead=True)


def _written(
    log: EventLog, kind: str, key: str, created: str, events: Sequence[Any], **when: bool
) -> Intent:
    intent = Intent(
        name=f"{INTENTS}/{key[:16]}-{uuid.uuid4().hex}.json",
        kind=kind,
        key=key,
        created=created,
        owner=process_identity(),
        events=events,
        **when,
    )
    log.blobs.create(intent.name, encode(vars(intent)))
    return intent


def tell(log: EventLog, intent: Intent) -> None:
    """What was intended happened."""
    for event_type, data, event_id, at in intent.events:
        log.append_data(event_type, data, event_id=event_id, at=at)
    log.blobs.delete(intent.name)


def withdraw(log: EventLog, intent: Intent) -> None:
    """It will not happen."""
    log.blobs.delete(intent.name)


def tell_untold(log: EventLog, read: Callable[[str, str], Artifact | None]) -> list[str]:
    """Tells what killed processes left untold; returns the keys. `read`: (kind, key) → what is
    committed. An intent that came to nothing goes once its process is known to be dead, or, of
    another host, after a day: nobody can tell whether that one lives, and if it does after all, it
    still tells by itself."""
    told = []
    for base in log.blobs.names(INTENTS):
        try:
            intent = Intent(**json.loads(log.blobs.read(f"{INTENTS}/{base}")))
            standing = read(intent.kind, intent.key)
        except (FileNotFoundError, FoundryError):
            continue  # told by another, or a damaged manifest that a run is going to replace
        if intent.happened(standing):
            tell(log, intent)
            told.append(intent.key)
        elif not intent.if_dead and (is_dead(dict(intent.owner)) or intent.age() > _FORGOTTEN):
            withdraw(log, intent)
    return told
