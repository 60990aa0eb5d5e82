"""Intents: what a commit is going to tell the lineage, written down before it happens.

The commit of an artifact is one rename, its events come after. A process killed in between would
leave an artifact that no table knows, and an attempt that runs forever. So the events are stored
first, with their ids and times, under the log's `intents/`; whoever comes next tells those whose
artifact stands. Telling twice writes one event. Normally there is nothing to list: one look per
run.
"""

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from foundry_core.lineage.events import EventLog, committed_identity, encode
from foundry_core.store.artifact import Artifact
from foundry_core.store.lease import is_dead, process_identity

INTENTS = "intents"


@dataclass(frozen=True, kw_only=True)
class Intent:
    """events: (type, data, id, time). The artifact is recognised by its attempt and creation."""

    name: str
    kind: str
    key: str
    created: str
    owner: Mapping[str, Any]
    events: Sequence[tuple[str, Mapping[str, Any], str, str]]

    def is_of(self, artifact: Artifact) -> bool:
        return artifact.created == self.created


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
    intent = Intent(
        name=f"{INTENTS}/{artifact.key[:16]}-{uuid.uuid4().hex}.json",
        kind=artifact.kind,
        key=artifact.key,
        created=artifact.created,
        owner=process_identity(),
        events=events,
    )
    log.files.create(intent.name, encode(vars(intent)))
    return intent


def tell(log: EventLog, intent: Intent) -> None:
    """The commit happened."""
    for event_type, data, event_id, at in intent.events:
        log.append(event_type, data, event_id=event_id, at=at)
    log.files.delete(intent.name)


def withdraw(log: EventLog, intent: Intent) -> None:
    """The commit will not happen."""
    log.files.delete(intent.name)


def tell_untold(log: EventLog, read: Callable[[str, str], Artifact | None]) -> list[str]:
    """Tells what killed committers left untold; returns the keys. `read`: (kind, key) → what is
    committed. An intent whose commit never happened goes once its process is known to be dead."""
    told = []
    for base in log.files.names(INTENTS):
        try:
            intent = Intent(**json.loads(log.files.read(f"{INTENTS}/{base}")))
        except FileNotFoundError:
            continue
        artifact = read(intent.kind, intent.key)
        if artifact is not None and intent.is_of(artifact):
            tell(log, intent)
            told.append(intent.key)
        elif is_dead(dict(intent.owner)):
            withdraw(log, intent)
    return told
