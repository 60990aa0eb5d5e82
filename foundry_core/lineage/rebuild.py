"""Events for what the store holds but the log does not say, and the reverse.

A process killed between the commit of an artifact and its event leaves a fact unpublished. The
event derived here takes id and time from artifact.json, so any number of processes may publish it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from foundry_core.errors import FoundryError
from foundry_core.lineage.connection import attach
from foundry_core.lineage.event_types import AliasSet, ArtifactRemoved
from foundry_core.lineage.events import EventLog, committed_identity
from foundry_core.lineage.index import Index
from foundry_core.lineage.records import committed_event
from foundry_core.store.manifest import Artifact, Place

# Gives alias → what it means.
Aliases = Callable[[], Mapping[str, Place]]


@dataclass(frozen=True, kw_only=True)
class Reconciled:
    """Keys and names that got an event. unreadable: manifests and names that could not be read."""

    committed: tuple[str, ...]
    removed: tuple[str, ...]
    aliases: tuple[str, ...]
    unreadable: tuple[str, ...]


class StoreReader(Protocol):
    """What a store must answer here."""

    def artifacts(self) -> list[tuple[str, str]]:
        """(kind, key) of everything committed."""

    def read(self, kind: str, key: str) -> Artifact | None:
        """What is committed. FoundryError when it cannot be read."""

    def record(self, artifact: Artifact, name: str) -> Path | None:
        """A local copy of a file of that artifact's own, if it has it."""

    def publish_pending(self, log: EventLog) -> list[str]:
        """Appends the events that killed processes left in the outbox."""


def reconcile(index: Index, store: StoreReader, aliases: Aliases) -> Reconciled:
    """Makes the log say what the store holds and which `aliases` it has, then advances the index.

    What was committed or removed since it was listed is looked at again, so running beside other
    processes is safe.
    """
    store.publish_pending(index.log)
    index.advance()
    with attach(index.path) as connection:
        rows = connection.execute("select key, kind, present from artifact").fetchall()
        named = dict(connection.execute("select alias, key from alias").fetchall())
    present = {key: kind for key, kind, is_present in rows if is_present}
    absent = {key for key, _, is_present in rows if not is_present}
    stored = {key: kind for kind, key in store.artifacts()}
    missing = {key: kind for key, kind in stored.items() if key not in present}
    committed, unreadable = _publish_commits(index.log, store, missing, absent)
    removed = []
    for key, kind in sorted(present.items()):
        if key not in stored and not _exists(store, kind, key):
            index.log.append(ArtifactRemoved(kind=kind, key=key, reason="missing"))
            removed.append(key)
    moved = []
    try:
        moved = _publish_aliases(index.log, named, aliases)
    except (FoundryError, OSError, ValueError) as error:
        unreadable.append(f"aliases: {error}")
    if committed or removed or moved:
        index.advance()
    return Reconciled(
        committed=tuple(committed),
        removed=tuple(removed),
        aliases=tuple(moved),
        unreadable=tuple(unreadable),
    )


def _publish_commits(
    log: EventLog, store: StoreReader, missing: Mapping[str, str], absent: set[str]
) -> tuple[list[str], list[str]]:
    """(keys that got an event, what could not be read) of `missing`, key → kind.

    absent: keys whose last event says that they are gone. Theirs happens now rather than when they
    were created, so that it comes after that one.
    """
    published: list[str] = []
    unreadable: list[str] = []
    for key, kind in sorted(missing.items()):
        try:
            artifact = store.read(kind, key)
            if artifact is None:
                continue
            event, problems = committed_event(artifact.to_json(), partial(store.record, artifact))
            unreadable += (f"{kind}/{key}: {problem}" for problem in problems)
            if key in absent:
                log.append(event)
            else:
                event_id, at = committed_identity(event.artifact)
                log.append(event, event_id=event_id, at=at)
        except (OSError, ValueError, FoundryError) as error:
            unreadable.append(f"{kind}/{key}: {error}")
            continue
        published.append(key)
    return published, unreadable


def _publish_aliases(log: EventLog, named: Mapping[str, str], aliases: Aliases) -> list[str]:
    """A process killed between a name and its event leaves `named`, what the log says, behind."""
    current = {name: place.key for name, place in aliases().items()}
    moved = sorted(
        name for name in current.keys() | named.keys() if current.get(name) != named.get(name)
    )
    for name in moved:
        log.append(AliasSet(alias=name, key=current.get(name)))
    return moved


def _exists(store: StoreReader, kind: str, key: str) -> bool:
    try:
        return store.read(kind, key) is not None
    except FoundryError:
        return True
