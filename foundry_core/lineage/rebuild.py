"""Events for what the store holds but the log does not say, and the reverse.

A process killed between the commit of an artifact and its event leaves a fact untold. The event
derived here takes id and time from artifact.json, so any number of processes may tell it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from foundry_core.errors import FoundryError
from foundry_core.lineage.event_types import AliasSet, ArtifactRemoved
from foundry_core.lineage.events import EventLog, committed_identity
from foundry_core.lineage.index import Index, attach
from foundry_core.lineage.records import committed_event

# Gives alias → {kind, key}.
Aliases = Callable[[], Mapping[str, Mapping[str, str]]]


@dataclass(frozen=True, kw_only=True)
class Reconciled:
    """Keys and names that got an event. unreadable: manifests and names that could not be read."""

    committed: tuple[str, ...]
    removed: tuple[str, ...]
    aliases: tuple[str, ...]
    unreadable: tuple[str, ...]


class Shelf(Protocol):
    """What a store must answer here."""

    def artifacts(self) -> list[tuple[str, str]]:
        """(kind, key) of everything committed."""

    def manifest(self, kind: str, key: str) -> dict[str, Any] | None:
        """artifact.json, or None. ValueError or OSError when it cannot be read."""

    def record(self, manifest: Mapping[str, Any], name: str) -> Path | None:
        """A local copy of a file of that artifact's own, if it has it."""

    def publish_pending(self, log: EventLog) -> list[str]:
        """Appends the events that killed processes left in the outbox."""


def reconcile(index: Index, store: Shelf, aliases: Aliases) -> Reconciled:
    """Makes the log say what the store holds and which `aliases` it has, then advances the index.

    What was committed or removed since it was listed is looked at again, so running beside other
    processes is safe.
    """
    store.publish_pending(index.log)
    index.advance()
    with attach(index.path) as connection:
        rows = connection.execute("select key, kind, present from artifact").fetchall()
        named = dict(connection.execute("select alias, key from alias").fetchall())
    known = {key: kind for key, kind, is_present in rows if is_present}
    called_gone = {key for key, _, is_present in rows if not is_present}
    committed, removed, unreadable = [], [], []
    stored = {key: kind for kind, key in store.artifacts()}
    for key, kind in sorted(stored.items()):
        if key in known:
            continue
        try:
            manifest = store.manifest(kind, key)
            if manifest is None:
                continue
            _tell(index.log, manifest, store, again=key in called_gone)
        except (OSError, ValueError) as error:
            unreadable.append(f"{kind}/{key}: {error}")
            continue
        committed.append(key)
    for key, kind in sorted(known.items()):
        if key not in stored and not _there(store, kind, key):
            index.log.append(ArtifactRemoved(kind=kind, key=key, reason="missing"))
            removed.append(key)
    moved = []
    try:
        moved = _tell_aliases(index.log, named, aliases)
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


def _tell_aliases(log: EventLog, named: Mapping[str, str], aliases: Aliases) -> list[str]:
    """A process killed between a name and its event leaves `named`, what the log says, behind."""
    stand = {name: place["key"] for name, place in aliases().items()}
    moved = sorted(
        name for name in stand.keys() | named.keys() if stand.get(name) != named.get(name)
    )
    for name in moved:
        log.append(AliasSet(alias=name, key=stand.get(name)))
    return moved


def _there(store: Shelf, kind: str, key: str) -> bool:
    try:
        return store.manifest(kind, key) is not None
    except (OSError, ValueError):
        return True


def _tell(log: EventLog, manifest: dict[str, Any], store: Shelf, *, again: bool) -> None:
    """Appends the artifact_committed event of a manifest, with its records. `again`: it must
    outlast an event that says it is gone, so it happens now rather than when it was created."""
    event = committed_event(manifest, lambda name: store.record(manifest, name))
    if again:
        log.append(event)
        return
    event_id, at = committed_identity(manifest)
    log.append(event, event_id=event_id, at=at)
