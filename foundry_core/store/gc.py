"""Garbage: artifacts that no alias, pinned run or recent run reaches, and what dead attempts left.

Reaching goes through inputs and links. Nothing young, and nothing whose lease is held, is touched,
nor what those reach. Removal takes the key's lease, looks again whether a run, alias or pin came
meanwhile, and tells the lineage.
"""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from foundry_core.errors import FoundryError
from foundry_core.lineage.events import EventLog
from foundry_core.store.artifact import Artifact
from foundry_core.store.base import Store
from foundry_core.store.catalog import load_run, run_ids
from foundry_core.store.intents import announce_removal, tell
from foundry_core.store.references import aliases, pins

GRACE_HOURS = 24.0
KEEP_RUNS = 3


@dataclass(frozen=True, kw_only=True)
class Garbage:
    """doomed: links first, so that none is left without its files. unreadable: kept, and named."""

    doomed: tuple[Artifact, ...]
    kept: int
    unreadable: tuple[str, ...]
    seen: tuple[Any, ...]


def owned_bytes(artifact: Artifact) -> int:
    """What lies in the store itself: links and adopted files cost nothing."""
    shared = artifact.linked_to or artifact.adopted
    return 0 if shared else sum(file.size for file in artifact.files)


def find_garbage(
    store: Store,
    *,
    keep_runs: int = KEEP_RUNS,
    grace_hours: float = GRACE_HOURS,
    ours: frozenset[str] = frozenset(),
) -> Garbage:
    """What `remove` would take away. `ours`: keys whose lease the caller holds. FoundryError for a
    negative bound."""
    if keep_runs < 0 or grace_hours < 0:
        raise FoundryError(
            f"gc: keep-runs = {keep_runs} and grace-hours = {grace_hours} must be ≥ 0",
            "0 keeps only what aliases, pins and leases reach",
        )
    seen = _seen(store)
    limit = datetime.now(UTC) - timedelta(hours=grace_hours)
    present, unreadable = _read_all(store)
    leased = store.leased() - ours
    young = {key for key, artifact in present.items() if _time(artifact.created) > limit}
    roots = leased | young | {place["key"] for place in aliases(store).values()}
    roots |= _keys_of_runs(store, keep_runs, limit, leased)
    kept = reach(roots, {key: _needs(artifact) for key, artifact in present.items()})
    doomed = [artifact for key, artifact in present.items() if key not in kept]
    return Garbage(
        doomed=tuple(sorted(doomed, key=lambda a: (a.linked_to is None, a.kind, a.key))),
        kept=len(present) - len(doomed),
        unreadable=unreadable,
        seen=seen,
    )


def reach(roots: Iterable[str], needs: Mapping[str, Iterable[str]]) -> set[str]:
    """The roots and everything they need, directly or not."""
    found: set[str] = set()
    pending = list(roots)
    while pending:
        key = pending.pop()
        if key not in found:
            found.add(key)
            pending += needs.get(key, ())
    return found


def remove(
    store: Store,
    log: EventLog,
    garbage: Garbage,
    *,
    keep_runs: int = KEEP_RUNS,
    grace_hours: float = GRACE_HOURS,
) -> list[Artifact]:
    """Removes what is garbage still; returns it."""
    removed = []
    for artifact in tuple(garbage.doomed):
        lease = store.acquire(artifact.key, settled=iter((False, True, True)).__next__)
        if lease is None:
            continue
        with lease:
            if _seen(store) != garbage.seen:
                garbage = find_garbage(
                    store,
                    keep_runs=keep_runs,
                    grace_hours=grace_hours,
                    ours=frozenset({artifact.key}),
                )
            if any(doomed.key == artifact.key for doomed in garbage.doomed):
                _remove(store, log, artifact)
                removed.append(artifact)
    return removed


def _remove(store: Store, log: EventLog, artifact: Artifact) -> None:
    kind, key = artifact.kind, artifact.key
    intent = announce_removal(log, kind, key, artifact.created, "gc", "")
    store.set_aside(kind, key)
    name = f"content/{artifact.content_key}"
    try:
        if store.documents.read(name).decode().strip() == key:
            store.documents.delete([name])
    except FileNotFoundError:
        pass
    tell(log, intent)


def _needs(artifact: Artifact) -> list[str]:
    links = [artifact.linked_to] if artifact.linked_to else []
    return [*(used.key for used in artifact.inputs), *links]


def _keys_of_runs(store: Store, keep: int, limit: datetime, leased: set[str]) -> set[str]:
    """Keys of the stages of runs that are pinned, young, at work or among the last."""
    names = run_ids(store)
    with ThreadPoolExecutor(8) as pool:
        runs: Sequence[Mapping[str, Any]] = list(pool.map(lambda n: load_run(store, n), names))
    pinned = set(pins(store))
    newest: dict[str, int] = {}
    keys: set[str] = set()
    for run in sorted(runs, key=lambda run: run.get("created", run["run_id"]), reverse=True):
        rank = newest[run["pipeline"]] = newest.get(run["pipeline"], 0) + 1
        own = {stage["key"] for stage in run["stages"].values()}
        young = "created" in run and _time(run["created"]) > limit
        if rank <= keep or young or run["run_id"] in pinned or own & leased:
            keys |= own
    return keys


def _read_all(store: Store) -> tuple[dict[str, Artifact], tuple[str, ...]]:
    unreadable = []

    def read(place: tuple[str, str]) -> Artifact | None:
        try:
            return store.read(*place)
        except FoundryError as error:
            unreadable.append(error.message)
            return None

    with ThreadPoolExecutor(8) as pool:
        found = [artifact for artifact in pool.map(read, store.artifacts()) if artifact]
    return {artifact.key: artifact for artifact in found}, tuple(sorted(unreadable))


def _seen(store: Store) -> tuple[Any, ...]:
    """What could protect more than it did: a removal looks whether it changed."""
    return store.documents.names("runs"), aliases(store), pins(store)


def _time(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
