"""Events for what the store holds but the log does not say, and the reverse.

A process killed between the commit of an artifact and its event leaves a fact untold. The event
derived here takes id and time from artifact.json, so any number of processes may tell it.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foundry_core.lineage.events import EventLog, committed_identity, episode_rows, metric_rows
from foundry_core.lineage.index import Index, attach

_MANIFEST = "artifact.json"


@dataclass(frozen=True, kw_only=True)
class Reconciled:
    """Keys that got an event. unreadable: manifests that could not be read."""

    committed: tuple[str, ...]
    removed: tuple[str, ...]
    unreadable: tuple[str, ...]


def reconcile(index: Index, store_root: Path, present: Iterable[tuple[str, str]]) -> Reconciled:
    """Makes the log say what the store holds, then advances the index.

    present: (kind, key) of every committed artifact. One that was committed or removed since it
    was listed is looked at again, so running beside other processes is safe.
    """
    index.advance()
    with attach(index.path) as connection:
        rows = connection.execute("select key, kind, present from artifact").fetchall()
    known = {key: kind for key, kind, is_present in rows if is_present}
    called_gone = {key for key, _, is_present in rows if not is_present}
    committed, removed, unreadable = [], [], []
    stored = {key: kind for kind, key in present}
    for key, kind in sorted(stored.items()):
        if key in known:
            continue
        folder = store_root / kind / key
        try:
            manifest = json.loads((folder / _MANIFEST).read_text())
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            unreadable.append(f"{kind}/{key}: {error}")
            continue
        _tell(index.log, manifest, folder, again=key in called_gone)
        committed.append(key)
    for key, kind in sorted(known.items()):
        if key not in stored and not (store_root / kind / key / _MANIFEST).exists():
            index.log.append("artifact_removed", {"kind": kind, "key": key, "reason": "missing"})
            removed.append(key)
    if committed or removed:
        index.advance()
    return Reconciled(
        committed=tuple(committed), removed=tuple(removed), unreadable=tuple(unreadable)
    )


def _tell(log: EventLog, manifest: dict[str, Any], folder: Path, *, again: bool) -> None:
    """Appends the artifact_committed event of a manifest, with its records. `again`: it must
    outlast an event that says it is gone, so it happens now rather than when it was created."""
    data = {
        "artifact": manifest,
        "metric_rows": list(metric_rows(folder / "records" / "metrics.jsonl")),
        "episode_rows": list(episode_rows(folder / "records" / "episodes.jsonl")),
    }
    if again:
        log.append("artifact_committed", data)
        return
    event_id, at = committed_identity(manifest)
    log.append("artifact_committed", data, event_id=event_id, at=at)
