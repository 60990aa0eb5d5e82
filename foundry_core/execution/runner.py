"""One stage, at least once executed and exactly once committed.

committed? reuse → lease → look again → attempt (`foundry_core.execution.attempt`). Called by a
Prefect task, a GPU worker or a test alike: everything it needs is in the job.
"""

import contextlib
import dataclasses
import threading
import time
from collections.abc import Mapping
from typing import Any

from foundry_core.errors import FoundryError
from foundry_core.execution.attempt import Attempt, close_abandoned
from foundry_core.execution.job import Interrupted, Observer, Outcome, StageJob, Work
from foundry_core.lineage.event_types import ArtifactCommitted
from foundry_core.lineage.events import EventLog
from foundry_core.pipeline.imports import CODE, Import
from foundry_core.pipeline.plan import resolve
from foundry_core.store.base import Store
from foundry_core.store.catalog import StoreCatalog
from foundry_core.store.disk import naming_disk
from foundry_core.store.lease import TTL_SECONDS, Lease, LeaseLost
from foundry_core.store.outbox import abort, enqueue, enqueue_removal, publish


def execute(
    job: StageJob,
    store: Store,
    events: EventLog,
    *,
    observe: Observer = lambda progress: None,
    cancelled: threading.Event | None = None,
    lease_ttl: float = TTL_SECONDS,
) -> Outcome:
    """Reuses or builds the job's artifact. Raises StageFailed or Interrupted; FoundryError when
    a disk is full or read-only.

    A worker that loses its lease (it stood still for the TTL, seen from another host) drops its
    attempt and waits for the one that took over.
    """
    started = time.monotonic()
    stop = cancelled or threading.Event()
    work = Work(job=job, store=store, events=events, observe=observe, cancelled=stop)
    outcome = None
    while outcome is None:
        with contextlib.suppress(LeaseLost), naming_disk(store.workplace):
            if job.spec.code == CODE:
                outcome = _import(job, store, events)
            else:
                outcome = reuse(job, store) or _leased(work, lease_ttl)
    return dataclasses.replace(outcome, seconds=time.monotonic() - started)


def reuse(job: StageJob, store: Store) -> Outcome | None:
    """The committed artifact of the job's key, if it may be reused. Asks no lease."""
    if job.force or resolve(job.spec, job.contents, StoreCatalog(store)).how != "recipe":
        return None
    return _reused(job, store, "recipe")


def _import(job: StageJob, store: Store, events: EventLog) -> Outcome:
    """An external artifact is imported, not computed: no child process, no attempt."""
    from foundry_core.store.imports import import_for_stage

    assert isinstance(job.spec.recipe, Import)
    state = store.state(job.spec.kind, job.spec.key)
    if state.artifact is not None and state.status == "ok":
        return Outcome(artifact=state.artifact, action="reuse", how="recipe")
    artifact = import_for_stage(store, events, job.spec.name, job.spec.recipe, job.run_id)
    return Outcome(artifact=artifact, action="run")


def _leased(work: Work, ttl: float) -> Outcome | None:
    """The artifact built under the key's lease, or the one that another worker committed while this
    one waited for it. None when that one is gone again."""
    job, store = work.job, work.store

    def done_elsewhere() -> bool:
        if work.cancelled.is_set():
            raise Interrupted(f"stage {job.spec.name!r} was cancelled while waiting")
        return reuse(job, store) is not None

    def waiting(holder: Mapping[str, Any]) -> None:
        work.observe({"message": f"waits for {holder['host']}:{holder['pid']}"})

    lease = store.acquire(job.spec.key, ttl=ttl, done=done_elsewhere, waiting=waiting)
    if lease is None:
        return reuse(job, store)
    with lease:
        return _build(work, lease)


def _build(work: Work, lease: Lease) -> Outcome:
    """Looks again, now that nobody else works on the key; then the attempt."""
    job, store = work.job, work.store
    kind, key = job.spec.kind, job.spec.key
    store.restore(kind, key)
    found = reuse(job, store) or _reuse_equal(work)
    if found is not None:
        return found
    # An intact one serves whoever names, pins or reads it until its successor is there.
    state = store.state(kind, key) if job.force else None
    replaced = state.artifact if state and state.status == "ok" else None
    if replaced is None:
        _set_aside(work, "not valid any more")
    return Attempt(work, lease, replaced).build()


def _reuse_equal(work: Work) -> Outcome | None:
    """Early cutoff: links the job's key to an artifact of other keys upstream that was computed
    from the same bytes. Under the lease, for it replaces what is committed under the key."""
    job, store, events, spec = work.job, work.store, work.events, work.job.spec
    if job.force:
        return None
    found = resolve(spec, job.contents, StoreCatalog(store))
    if found.how != "content" or found.committed is None:
        return None
    equal = store.read(spec.kind, found.committed.key)
    if equal is None:
        return None
    close_abandoned(work)
    _set_aside(work, "linked to an equal one")
    artifact = job.linked(equal, events.now())
    entry = enqueue(events, artifact, ArtifactCommitted(artifact=artifact.to_json()))
    if store.link(artifact):
        publish(events, entry)
    else:
        abort(events, entry)
    if store.state(spec.kind, spec.key).status != "ok":
        return None  # `gc` removed the files meanwhile, or another's artifact came, damaged
    return _reused(job, store, "content")


def _reused(job: StageJob, store: Store, how: str) -> Outcome | None:
    artifact = store.read(job.spec.kind, job.spec.key)
    return Outcome(artifact=artifact, action="reuse", how=how) if artifact else None


def _set_aside(work: Work, reason: str) -> None:
    """Takes what is committed under the key out of service, and tells the lineage."""
    store, kind, key = work.store, work.job.spec.kind, work.job.spec.key
    try:
        committed = store.read(kind, key)
        created = committed.created if committed else None
    except FoundryError:
        created = ""
    if created is None:
        store.set_aside(kind, key)  # at most files without a manifest
        return
    entry = enqueue_removal(work.events, kind, key, created, reason, work.job.run_id)
    store.set_aside(kind, key)
    publish(work.events, entry)
