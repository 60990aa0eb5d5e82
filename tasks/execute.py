"""One stage, at least once executed and exactly once committed.

committed? reuse → lease → look again → run in a child process → digest → verify the lease →
exclusive commit → event. Called by a Prefect task, a GPU worker or a test alike: everything it
needs is in the job.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from foundry_core.lineage.events import EventLog
from foundry_core.lineage.provenance import collect_provenance
from foundry_core.pipeline.identity import StageSpec
from foundry_core.pipeline.plan import resolve
from foundry_core.store.artifact import (
    Artifact,
    ArtifactInput,
    content_digest,
    scan,
)
from foundry_core.store.catalog import StoreCatalog
from foundry_core.store.lease import TTL_SECONDS, LeaseLost, acquire
from foundry_core.store.store import Store

_POLL_SECONDS = 0.1
_TERMINATE_SECONDS = 10.0


class StageFailed(RuntimeError):
    """A stage's own failure. `log` is where its output lies."""

    def __init__(self, stage: str, error: str, hint: str, log: Path) -> None:
        super().__init__(f"stage {stage!r} failed: {error}")
        self.stage, self.error, self.hint, self.log = stage, error, hint, log


class Interrupted(RuntimeError):
    """The stage was stopped from outside; its scratch is kept for the next attempt."""


@dataclass(frozen=True, kw_only=True)
class StageJob:
    """A stage ready to run: its identity, its settings, its committed inputs.

    recipe: the full recipe (defaults and locations included), as JSON.
    inputs: slot → label → committed artifact.
    """

    spec: StageSpec
    recipe: Mapping[str, Any]
    resources: Mapping[str, Any]
    inputs: Mapping[str, Mapping[str, Artifact]]
    run_id: str
    log: Path
    force: bool = False
    origin: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a stage came to. action: 'run' when this call did the work."""

    artifact: Artifact
    action: Literal["run", "reuse"]
    how: str
    seconds: float
    attempt: str | None = None


Observer = Callable[[Mapping[str, Any]], None]


def execute(
    job: StageJob,
    store: Store,
    events: EventLog,
    *,
    observe: Observer = lambda progress: None,
    cancelled: threading.Event | None = None,
    lease_ttl: float = TTL_SECONDS,
) -> Outcome:
    """Reuses or builds the job's artifact. Raises StageFailed, Interrupted or LeaseLost."""
    started = time.monotonic()
    cancelled = cancelled or threading.Event()

    def done() -> Outcome | None:
        return None if job.force else _reuse(job, store, events, started)

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

    lease = acquire(
        store.lease_path(job.spec.key),
        ttl=lease_ttl,
        settled=settled_elsewhere,
        waiting=lambda holder: observe({"message": f"waits for {holder['host']}:{holder['pid']}"}),
    )
    if lease is None:
        return outcomes[-1]
    with lease:
        found = done()
        if found:
            return found
        store.set_aside(job.spec.kind, job.spec.key)
        return _attempt(job, store, events, lease.verify, observe, cancelled, started)


def settled(job: StageJob, store: Store, events: EventLog) -> Outcome | None:
    """The outcome when nothing needs to run; None when something does. Asks no lease."""
    return None if job.force else _reuse(job, store, events, time.monotonic())


def _reuse(job: StageJob, store: Store, events: EventLog, started: float) -> Outcome | None:
    """The committed artifact, by recipe key or by the contents of the inputs."""
    spec = job.spec
    found = resolve(spec, _contents(job), StoreCatalog(store))
    if found.committed is None:
        return None
    if found.how == "content":
        equal = store.read(spec.kind, found.committed.key)
        if equal is None:
            return None
        store.set_aside(spec.kind, spec.key)
        linked = _linked(job, equal)
        if store.link(linked):
            events.append("artifact_committed", {"artifact": linked.to_json()}, job.run_id)
    artifact = store.read(spec.kind, spec.key)
    if artifact is None:
        return None
    seconds = time.monotonic() - started
    return Outcome(artifact=artifact, action="reuse", how=found.how, seconds=seconds)


def _contents(job: StageJob) -> dict[str, dict[str, str]]:
    return {
        slot: {label: artifact.content for label, artifact in named.items()}
        for slot, named in job.inputs.items()
    }


def _attempt(
    job: StageJob,
    store: Store,
    events: EventLog,
    verify_lease: Callable[[], None],
    observe: Observer,
    cancelled: threading.Event,
    started: float,
) -> Outcome:
    spec = job.spec
    _close_abandoned(job, store, events)
    attempt, out, scratch = store.attempt(spec.key)
    provenance = collect_provenance(sys.argv)
    common = {"key": spec.key, "attempt": attempt, "kind": spec.kind, "stage": spec.name}
    events.append(
        "attempt_started",
        common | {"pid": os.getpid(), "provenance": provenance} | dict(job.origin),
        run_id=job.run_id,
    )

    def finish(state: str, error: str = "", usage: Mapping[str, float] | None = None) -> None:
        seconds = time.monotonic() - started
        gpus = float(job.resources.get("gpus", 0))
        payload = {"state": state, "error": error, "seconds": seconds} | dict(usage or {})
        events.append(
            "attempt_finished",
            common | payload | {"gpu_seconds": gpus * seconds},
            run_id=job.run_id,
        )

    try:
        result = _run_child(job, store, out, scratch, observe, cancelled)
        if "error" in result:
            store.record_failure(spec.key, result["error"])
            finish("failed", result["error"], result.get("usage"))
            raise StageFailed(spec.name, result["error"], result["hint"], job.log)
        artifact = _describe(job, attempt, out, result["metrics"], provenance, started)
        verify_lease()
        rows = _rows(out)
        committed = store.commit(artifact, out)
    except (Interrupted, KeyboardInterrupt):
        finish("interrupted")
        raise
    except LeaseLost as error:
        finish("discarded", str(error))
        raise
    finally:
        shutil.rmtree(out, ignore_errors=True)
    if committed:
        events.append("artifact_committed", {"artifact": artifact.to_json()} | rows, job.run_id)
    else:
        artifact = store.read(spec.kind, spec.key) or artifact
    finish("committed" if committed else "discarded", usage=result.get("usage"))
    seconds = time.monotonic() - started
    return Outcome(artifact=artifact, action="run", how="", seconds=seconds, attempt=attempt)


def _close_abandoned(job: StageJob, store: Store, events: EventLog) -> None:
    """Records and removes what a killed worker left. Its scratch stays: training resumes there."""
    for folder in store.abandoned(job.spec.key):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(_control(folder), ignore_errors=True)
        payload = {"key": job.spec.key, "attempt": folder.name, "kind": job.spec.kind}
        payload |= {"stage": job.spec.name, "state": "lost", "error": "its process died"}
        events.append("attempt_finished", payload | {"seconds": 0.0, "gpu_seconds": 0.0})


def _control(out: Path) -> Path:
    """Where parent and child of an attempt exchange job, progress and result."""
    return out.parent / f"control-{out.name}"


def _run_child(
    job: StageJob,
    store: Store,
    out: Path,
    scratch: Path,
    observe: Observer,
    cancelled: threading.Event,
) -> dict[str, Any]:
    control = _control(out)
    control.mkdir()
    description = {
        "stage": job.spec.name,
        "kind": job.spec.kind,
        "key": job.spec.key,
        "seed": job.spec.seed,
        "recipe": job.recipe,
        "resources": job.resources,
        "inputs": {
            slot: {label: _input(job, store, slot, label, a) for label, a in named.items()}
            for slot, named in job.inputs.items()
        },
        "out": str(out),
        "scratch": str(scratch),
        "parent": os.getpid(),
    }
    (control / "job.json").write_text(json.dumps(description))
    job.log.parent.mkdir(parents=True, exist_ok=True)
    try:
        with job.log.open("ab") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "tasks.child", str(control)],
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env=_environment(job.resources),
                start_new_session=True,
            )
            _wait(child, control, observe, cancelled, job.spec.name)
        return _result(control, child.returncode)
    finally:
        shutil.rmtree(control, ignore_errors=True)


def _input(
    job: StageJob, store: Store, slot: str, label: str, artifact: Artifact
) -> dict[str, str]:
    return {
        "path": str(store.files_path(artifact)),
        "stage": job.spec.upstream[slot][label],
        "kind": artifact.kind,
        "key": artifact.key,
        "content": artifact.content,
    }


def _environment(resources: Mapping[str, Any]) -> dict[str, str]:
    threads = str(resources.get("cpus", 1))
    limits = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "PYTHONUNBUFFERED": "1"}
    return {**os.environ, **limits}


def _wait(
    child: subprocess.Popen,
    control: Path,
    observe: Observer,
    cancelled: threading.Event,
    name: str,
) -> None:
    seen = ""
    try:
        while child.poll() is None:
            if cancelled.is_set():
                raise Interrupted(f"stage {name!r} was cancelled")
            seen = _observe(control / "progress.json", seen, observe)
            time.sleep(_POLL_SECONDS)
    finally:
        _stop(child)
    _observe(control / "progress.json", seen, observe)


def _observe(path: Path, seen: str, observe: Observer) -> str:
    try:
        text = path.read_text()
    except FileNotFoundError:
        return seen
    if text != seen:
        observe(json.loads(text))
    return text


def _stop(child: subprocess.Popen) -> None:
    """Ends the child's whole session: first asked, then killed. Grandchildren that left a finished
    child behind are killed too."""
    if child.poll() is None:
        _signal_group(child.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_TERMINATE_SECONDS)
    _signal_group(child.pid, signal.SIGKILL)
    child.wait()


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def _result(control: Path, returncode: int) -> dict[str, Any]:
    try:
        return json.loads((control / "result.json").read_text())
    except FileNotFoundError:
        why = f"signal {-returncode}" if returncode < 0 else f"exit code {returncode}"
        return {
            "error": f"its process ended with {why} and no result",
            "hint": "out of memory? see the stage's log; run again to continue",
        }


def _describe(
    job: StageJob,
    attempt: str,
    out: Path,
    metrics: Mapping[str, Any],
    provenance: Mapping[str, Any],
    started: float,
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
        created=datetime.now(UTC).isoformat(timespec="milliseconds"),
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


def _linked(job: StageJob, equal: Artifact) -> Artifact:
    """This job's artifact, sharing the files of one computed from the same bytes."""
    values = {name: getattr(equal, name) for name in equal.__dataclass_fields__}
    return Artifact(
        **values
        | _identity(job)
        | {
            "linked_to": equal.linked_to or equal.key,
            "run_id": job.run_id,
            "created": datetime.now(UTC).isoformat(timespec="milliseconds"),
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
