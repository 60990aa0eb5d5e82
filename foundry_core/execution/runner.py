"""One stage, at least once executed and exactly once committed.

committed? reuse → lease → look again → run in a child process → digest → verify the lease →
exclusive commit → event. Called by a Prefect task, a GPU worker or a test alike: everything it
needs is in the job.
"""

import contextlib
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foundry_core.errors import FoundryError
from foundry_core.execution.job import Interrupted, Observer, Outcome, StageFailed, StageJob
from foundry_core.execution.supervise import run_child
from foundry_core.lineage.events import EventLog
from foundry_core.lineage.provenance import collect_provenance
from foundry_core.objects import StoreUnavailable
from foundry_core.pipeline import imports
from foundry_core.pipeline.plan import resolve
from foundry_core.store.base import Store
from foundry_core.store.catalog import StoreCatalog
from foundry_core.store.disk import naming_disk
from foundry_core.store.lease import TTL_SECONDS, Lease, LeaseLost
from foundry_core.store.manifest import Artifact, ArtifactInput, content_digest, scan, write_durably
from foundry_core.store.outbox import announce, announce_loss, announce_removal, tell, withdraw


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
    cancelled = cancelled or threading.Event()
    if job.spec.code == imports.CODE:
        return _import(job, store, events)
    while True:
        with contextlib.suppress(LeaseLost), naming_disk(store.workplace):
            return _settle(job, store, events, observe, cancelled, lease_ttl)


def _import(job: StageJob, store: Store, events: EventLog) -> Outcome:
    """An external artifact is adopted, not computed: no child process, no attempt."""
    from foundry_core.store.adopt import bring_in

    started = time.monotonic()
    state = store.state(job.spec.kind, job.spec.key)
    if state.artifact is not None and state.status == "ok":
        return Outcome(artifact=state.artifact, action="reuse", how="recipe", seconds=0.0)
    recipe = imports.Import.model_validate(job.recipe)
    artifact = bring_in(store, events, job.spec.name, recipe, job.run_id)
    return Outcome(artifact=artifact, action="run", how="", seconds=time.monotonic() - started)


def _settle(
    job: StageJob,
    store: Store,
    events: EventLog,
    observe: Observer,
    cancelled: threading.Event,
    lease_ttl: float,
) -> Outcome:
    started = time.monotonic()

    def done(*, leased: bool = False) -> Outcome | None:
        return None if job.force else _reuse(job, store, events, started, leased)

    found = done()
    if found:
        return found
    outcomes: list[Outcome] = []

    def settled_elsewhere() -> bool:
        if cancelled.is_set():
            raise Interrupted(f"stage {job.spec.name!r} was cancelled while waiting")
        found = done()
        if found:
            outcomes.append(found)
        return found is not None

    lease = store.acquire(
        job.spec.key,
        ttl=lease_ttl,
        settled=settled_elsewhere,
        waiting=lambda holder: observe({"message": f"waits for {holder['host']}:{holder['pid']}"}),
    )
    if lease is None:
        return outcomes[-1]
    with lease:
        store.restore(job.spec.kind, job.spec.key)
        found = done(leased=True)
        if found:
            return found
        # An intact one serves whoever names, pins or reads it until its successor is there.
        standing = store.state(job.spec.kind, job.spec.key) if job.force else None
        replaced = standing.artifact if standing and standing.status == "ok" else None
        if replaced is None:
            _set_aside(job, store, events, "not valid any more")
        return _attempt(job, store, events, lease, observe, cancelled, started, replaced)


def settled(job: StageJob, store: Store, events: EventLog) -> Outcome | None:
    """The outcome when nothing needs to run; None when something does. Asks no lease."""
    return None if job.force else _reuse(job, store, events, time.monotonic(), leased=False)


def _reuse(
    job: StageJob, store: Store, events: EventLog, started: float, leased: bool
) -> Outcome | None:
    """The committed artifact, by recipe key or, under the lease, by the contents of the inputs:
    linking replaces what stands under the key, which another process may be linking or building.
    """
    spec = job.spec
    found = resolve(spec, _contents(job), StoreCatalog(store))
    if found.committed is None:
        return None
    if found.how == "content":
        if not leased:
            return None
        equal = store.read(spec.kind, found.committed.key)
        if equal is None:
            return None
        _close_abandoned(job, store, events)
        _set_aside(job, store, events, "linked to an equal one")
        linked = _linked(job, equal, events.now())
        intent = announce(events, linked, {})
        if store.link(linked):
            tell(events, intent)
        else:
            withdraw(events, intent)
        if store.state(spec.kind, spec.key).status != "ok":
            return None  # `gc` removed the files meanwhile, or another's artifact came, damaged
    artifact = store.read(spec.kind, spec.key)
    if artifact is None:
        return None
    seconds = time.monotonic() - started
    return Outcome(artifact=artifact, action="reuse", how=found.how, seconds=seconds)


def _set_aside(job: StageJob, store: Store, events: EventLog, reason: str) -> None:
    """Takes what stands under the key out of service, and tells the lineage."""
    kind, key = job.spec.kind, job.spec.key
    try:
        standing = store.read(kind, key)
        created = standing.created if standing else None
    except FoundryError:
        created = ""
    if created is None:
        store.set_aside(kind, key)  # at most files without a manifest
        return
    intent = announce_removal(events, kind, key, created, reason, job.run_id)
    store.set_aside(kind, key)
    tell(events, intent)


def _contents(job: StageJob) -> dict[str, dict[str, str]]:
    return {
        slot: {label: artifact.content for label, artifact in named.items()}
        for slot, named in job.inputs.items()
    }


def _attempt(
    job: StageJob,
    store: Store,
    events: EventLog,
    lease: Lease,
    observe: Observer,
    cancelled: threading.Event,
    started: float,
    replaced: Artifact | None,
) -> Outcome:
    spec = job.spec
    _close_abandoned(job, store, events)
    attempt, out, scratch = store.attempt(spec.key)
    _keep_scratch_of(scratch, spec.content_key(_contents(job)), replaced)
    provenance = collect_provenance(sys.argv)
    common = {"key": spec.key, "attempt": attempt, "kind": spec.kind, "stage": spec.name}
    events.append(
        "attempt_started",
        common | {"pid": os.getpid(), "provenance": provenance} | dict(job.origin),
        run_id=job.run_id,
    )
    # Where an artifact stands, perhaps nobody takes this key's lease again and tells of this one.
    loss = None
    if replaced:
        lost = _lost(job, attempt) | {"run_id": job.run_id}
        loss = announce_loss(events, spec.kind, spec.key, lost)

    def finished(state: str, error: str = "") -> dict[str, Any]:
        seconds = time.monotonic() - started
        gpus = float(job.resources.get("gpus", 0))
        payload = {"state": state, "error": error, "seconds": seconds, "run_id": job.run_id}
        return common | payload | result.get("usage", {}) | {"gpu_seconds": gpus * seconds}

    def finish(state: str, error: str = "") -> None:
        events.append("attempt_finished", finished(state, error))
        if loss:
            withdraw(events, loss)

    result: dict[str, Any] = {}
    closed = True
    try:
        result = run_child(job, store, out, scratch, observe, lease, cancelled)
        lease.verify()
        if "error" in result:
            store.record_failure(spec.key, result["error"])
            finish("failed", result["error"])
            raise StageFailed(spec.name, result["error"], result["hint"], job.log)
        artifact = _describe(
            job, attempt, out, result["metrics"], provenance, started, events.now()
        )
        lease.verify()
        intent = announce(events, artifact, _rows(out), finished("committed"))
        committed = store.commit(artifact, out, lease.verify, replaces=replaced is not None)
    except (Interrupted, KeyboardInterrupt):
        finish("interrupted")
        raise
    except LeaseLost as error:
        finish("discarded", str(error))
        raise
    except StoreUnavailable:
        # Nobody can be told, and a commit may have happened: its marker stays, and whoever comes
        # next tells what became of this attempt.
        shutil.rmtree(out, ignore_errors=True)
        closed = False
        raise
    except (OSError, FoundryError) as error:
        shutil.rmtree(out, ignore_errors=True)  # a full disk may then have room for the event
        finish("failed", str(error))
        raise
    finally:
        if closed:
            store.discard(spec.key, attempt)
    if committed:
        tell(events, intent)
        if loss:
            withdraw(events, loss)
    else:
        withdraw(events, intent)
        artifact = store.read(spec.kind, spec.key) or artifact
        finish("discarded", "another attempt was committed first")
    seconds = time.monotonic() - started
    return Outcome(artifact=artifact, action="run", how="", seconds=seconds, attempt=attempt)


def _close_abandoned(job: StageJob, store: Store, events: EventLog) -> None:
    """Records and removes what a killed worker left. Its scratch stays: training resumes there."""
    for attempt in store.abandoned(job.spec.key):
        events.append("attempt_finished", _lost(job, attempt))
        store.discard(job.spec.key, attempt)


def _lost(job: StageJob, attempt: str) -> dict[str, Any]:
    """What is told of an attempt whose process died."""
    payload = {"key": job.spec.key, "attempt": attempt, "kind": job.spec.kind}
    payload |= {"stage": job.spec.name, "state": "lost", "error": "its process died"}
    return payload | {"seconds": 0.0, "gpu_seconds": 0.0}


def _keep_scratch_of(scratch: Path, content_key: str, replaced: Artifact | None) -> None:
    """Empties the scratch unless it was begun from these very input bytes: a recipe key may name
    inputs that were built again since and came out otherwise. What was begun to replace an artifact
    is not what that artifact came from."""
    begun = f"{content_key} for {replaced.created}" if replaced else content_key
    mark = scratch.with_name("scratch-of")
    if not (mark.exists() and mark.read_text() == begun):
        shutil.rmtree(scratch)
        scratch.mkdir()
        write_durably(mark, begun.encode())


def _describe(
    job: StageJob,
    attempt: str,
    out: Path,
    metrics: Mapping[str, Any],
    provenance: Mapping[str, Any],
    started: float,
    created: str,
) -> Artifact:
    files = scan(out)
    if not files:
        raise StageFailed(job.spec.name, "it wrote no files", "a stage must write to out", job.log)
    return Artifact(
        **_identity(job),
        content=content_digest(files),
        files=files,
        metrics=metrics,
        attempt=attempt,
        run_id=job.run_id,
        created=created,
        seconds=time.monotonic() - started,
        provenance=provenance,
    )


def _identity(job: StageJob) -> dict[str, Any]:
    spec = job.spec
    inputs = tuple(
        ArtifactInput(
            slot=slot,
            label=label,
            stage=spec.upstream[slot][label],
            kind=artifact.kind,
            key=artifact.key,
            content=artifact.content,
        )
        for slot, named in job.inputs.items()
        for label, artifact in named.items()
    )
    return {
        "kind": spec.kind,
        "key": spec.key,
        "content_key": spec.content_key(_contents(job)),
        "code": spec.code,
        "closure": spec.closure,
        "recipe": spec.recipe,
        "seed": spec.seed,
        "sources": spec.sources,
        "inputs": inputs,
    }


def _linked(job: StageJob, equal: Artifact, created: str) -> Artifact:
    """This job's artifact, sharing the files of one computed from the same bytes."""
    values = {name: getattr(equal, name) for name in equal.__dataclass_fields__}
    return Artifact(
        **values
        | _identity(job)
        | {
            "linked_to": equal.linked_to or equal.key,
            "run_id": job.run_id,
            "created": created,
            "attempt": "",
        }
    )


def _rows(out: Path) -> dict[str, list[dict[str, Any]]]:
    """Metric and episode rows for the lineage, from the artifact's records."""
    metrics = [
        {"step": row["step"], "name": name, "value": value}
        for row in _json_lines(out / "records" / "metrics.jsonl")
        for name, value in row.items()
        if name != "step" and isinstance(value, (int, float))
    ]
    return {"metric_rows": metrics, "episode_rows": _json_lines(out / "records/episodes.jsonl")}


def _json_lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().splitlines() if line]
