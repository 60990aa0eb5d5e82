"""Garbage: artifacts that no alias, pinned run or recent run reaches, and what dead attempts left.

Reaching goes through inputs and links, and from a training to the trunks that it left for larger
budgets, unless these are to go. Nothing young, and nothing whose lease is held, is touched,
nor what those reach, nor what a run at work plans. Removal takes the key's lease, looks again
whether a run, alias, pin, lease or link came meanwhile, and tells the lineage. What an unreadable
manifest reaches cannot be known: as long as there is one, nothing is removed.
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from foundry_core.errors import FoundryError
from foundry_core.lineage.events import EventLog
from foundry_core.pipeline.trunks import KIND as TRUNK
from foundry_core.store.base import Store
from foundry_core.store.lease import Lease
from foundry_core.store.manifest import Artifact
from foundry_core.store.outbox import abort, enqueue_removal, publish
from foundry_core.store.references import aliases, pins
from foundry_core.store.run_records import all_runs
from foundry_core.store.trunks import forget_trunk, trunks_in_use, trunks_of

GRACE_HOURS = 24.0
KEEP_RUNS = 3
_LONGEST_GRACE_HOURS = 876_000.0

# Gives the ids of the runs that are at work; called whenever it matters.
RunsAtWork = Callable[[], Iterable[str]]


@dataclass(frozen=True, kw_only=True)
class Garbage:
    """to_delete: links first, so that none is left without its files. unreadable: kept, and named.
    leases: keys that had one. unchanging: keys that no run that is kept may turn into a link.
    again: looks again by the same bounds; `held` are keys whose lease the caller holds."""

    to_delete: tuple[Artifact, ...]
    kept: int
    unreadable: tuple[str, ...]
    seen: tuple[Any, ...]
    leases: frozenset[str]
    unchanging: frozenset[str]
    again: Callable[[frozenset[str]], "Garbage"]


def owned_bytes(artifact: Artifact) -> int:
    """What lies in the store itself: links and external files cost nothing."""
    shared = artifact.linked_to or artifact.external
    return 0 if shared else sum(file.size for file in artifact.files)


def find_garbage(
    store: Store,
    *,
    keep_runs: int = KEEP_RUNS,
    grace_hours: float = GRACE_HOURS,
    at_work: RunsAtWork = tuple,
    keep_trunks: bool = True,
) -> Garbage:
    """What `remove` takes away. keep_trunks: as long as the trainings that left them. FoundryError
    for a bound that is none."""
    if keep_runs < 0 or not 0 <= grace_hours <= _LONGEST_GRACE_HOURS:
        raise FoundryError(
            f"gc: keep-runs = {keep_runs} and grace-hours = {grace_hours:g} must be ≥ 0, "
            f"and the hours ≤ {_LONGEST_GRACE_HOURS:g}",
            "0 keeps only what aliases, pins, leases and runs at work reach",
        )
    return _look(store, keep_runs, grace_hours, at_work, keep_trunks, frozenset())


def _look(
    store: Store,
    keep_runs: int,
    grace_hours: float,
    at_work: RunsAtWork,
    keep_trunks: bool,
    held: frozenset[str],
) -> Garbage:
    seen = _seen(store)
    limit = datetime.now(UTC) - timedelta(hours=grace_hours)
    leases = frozenset(store.lease_keys())
    leased = store.leased() - held
    present, unreadable = _read_all(store)
    young = {key for key, artifact in present.items() if _time(artifact.created) > limit}
    of_runs = _keys_of_runs(store, keep_runs, limit, leased, {*pins(store), *at_work()})
    roots = leased | young | of_runs | {place.key for place in aliases(store).values()}
    roots |= trunks_in_use(store, leased)
    kept = reach(roots, {key: _needs(one, keep_trunks) for key, one in present.items()})
    to_delete = [artifact for key, artifact in present.items() if key not in kept]
    return Garbage(
        to_delete=tuple(sorted(to_delete, key=lambda a: (a.linked_to is None, a.kind, a.key))),
        kept=len(present) - len(to_delete),
        unreadable=unreadable,
        seen=seen,
        leases=leases,
        unchanging=frozenset(present.keys() - of_runs - leased),
        again=functools.partial(_look, store, keep_runs, grace_hours, at_work, keep_trunks),
    )


def reach(roots: Iterable[str], needs: Mapping[str, Iterable[str]]) -> set[str]:
    """The roots and everything they need, directly or not."""
    reached: set[str] = set()
    pending = list(roots)
    while pending:
        key = pending.pop()
        if key not in reached:
            reached.add(key)
            pending += needs.get(key, ())
    return reached


def tidy(store: Store, log: EventLog) -> None:
    """Does what killed processes left undone, before what they left is judged: frees their leases,
    puts back what they were replacing, tells what they did."""
    store.free_dead_leases()
    for kind, key in store.replacing():
        lease = _if_free(store, key)
        if lease is not None:
            with lease:
                store.restore(kind, key)
    store.publish_pending(log)


def remove(store: Store, log: EventLog, garbage: Garbage) -> list[Artifact]:
    """Removes what is garbage still; returns it. FoundryError while a manifest is unreadable."""
    garbage = _all_read(garbage)
    looked_at = {artifact.key for artifact in garbage.to_delete}
    removed = []
    for artifact in tuple(garbage.to_delete):
        lease = _if_free(store, artifact.key)
        if lease is None:
            continue
        with lease:
            held = frozenset({artifact.key})
            # This call's own leases may still show: in an object store each leaves a tombstone.
            new_leases = set(store.lease_keys()) - garbage.leases - looked_at
            if new_leases or _seen(store) != garbage.seen:
                garbage = _all_read(garbage.again(held))
            if artifact.key not in {other.key for other in garbage.to_delete}:
                continue
            if _remove(store, log, artifact, garbage.unchanging):
                removed.append(artifact)
            else:
                garbage = _all_read(garbage.again(held))
    return removed


def _if_free(store: Store, key: str) -> Lease | None:
    """The key's lease, unless another holds it."""
    return store.acquire(key, done=iter((False, True, True)).__next__)


def _all_read(garbage: Garbage) -> Garbage:
    if garbage.unreadable:
        raise FoundryError(
            f"gc removes nothing while {garbage.unreadable[0]}: what it needs cannot be told",
            "`foundry lineage verify` lists what is corrupt; restore the file or delete its "
            "folder, then run gc again",
        )
    return garbage


def _remove(store: Store, log: EventLog, artifact: Artifact, unchanging: frozenset[str]) -> bool:
    """False when a link or a training came that needs the files. They are looked for once nobody
    can find them any more; who needs them looks afterwards whether they still are there."""
    kind, key = artifact.kind, artifact.key
    entry = enqueue_removal(log, kind, key, artifact.created, "gc", "")
    wanted = functools.partial(_wanted, store, artifact, unchanging)
    if not store.set_aside(kind, key, wanted):
        abort(log, entry)
        return False
    store.forget_content(artifact)
    forget_trunk(store, artifact)
    publish(log, entry)
    return True


def _wanted(store: Store, artifact: Artifact, unchanging: frozenset[str]) -> bool:
    if artifact.kind == TRUNK:
        return artifact.key in trunks_in_use(store, store.leased())
    return _linked(store, artifact, unchanging)


def _linked(store: Store, artifact: Artifact, unchanging: frozenset[str]) -> bool:
    """Whether a link to an artifact came since its store was looked through. What cannot be read
    may be one."""
    names = set(store.documents.names(artifact.kind)) - unchanging - {artifact.key}
    others = (store.read(artifact.kind, name) for name in names)
    try:
        return any(other and other.linked_to == artifact.key for other in others)
    except FoundryError:
        return True


def _needs(artifact: Artifact, keep_trunks: bool) -> list[str]:
    """What must stay for it. A trunk needs no inputs: whoever goes on from it has them."""
    links = [artifact.linked_to] if artifact.linked_to else []
    trunks = trunks_of(artifact) if keep_trunks else []
    inputs = [] if artifact.kind == TRUNK else [used.key for used in artifact.inputs]
    return [*inputs, *links, *trunks]


def _keys_of_runs(
    store: Store, keep: int, limit: datetime, leased: set[str], named: set[str]
) -> set[str]:
    """Keys of the stages of runs that are named, young, at work or among the last."""
    runs: list[Mapping[str, Any]] = [*all_runs(store.documents)]
    newest: dict[str, int] = {}
    keys: set[str] = set()
    for run in sorted(runs, key=lambda run: run.get("created", run["run_id"]), reverse=True):
        rank = newest[run["pipeline"]] = newest.get(run["pipeline"], 0) + 1
        own = {stage["key"] for stage in run["stages"].values()}
        young = "created" in run and _time(run["created"]) > limit
        if rank <= keep or young or run["run_id"] in named or own & leased:
            keys |= own
    return keys


def _read_all(store: Store) -> tuple[dict[str, Artifact], tuple[str, ...]]:
    found = store.read_all()
    unreadable = sorted(one.message for one in found if isinstance(one, FoundryError))
    return {one.key: one for one in found if isinstance(one, Artifact)}, tuple(unreadable)


def _seen(store: Store) -> tuple[Any, ...]:
    """What could protect more than it did: a removal looks whether it changed."""
    return store.documents.names("runs"), aliases(store), pins(store)


def _time(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
