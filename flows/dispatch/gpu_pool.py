"""Training on a worker of Prefect's work pool `gpu-pool`.

The coordinator only waits: it holds no slot of the pool, and the pool's limit says how many
trainings run at once. One key is one run at a time, whoever asks: the idempotency key <key>-a<n>
makes two coordinators share it.
"""

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import flows.prefect.settings  # noqa: F401  (Prefect reads its settings once, on import)

# isort: split
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterType,
    FlowRunFilter,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound

from flows.dispatch.base import Elsewhere
from flows.prefect import api as prefect_api
from flows.prefect.progress import read_progress
from foundry_core.errors import FoundryError
from foundry_core.execution.job import Interrupted, Observer, Outcome, StageFailed, StageJob
from foundry_core.execution.transport import job_to_json, outcome_of
from foundry_core.store.base import Store

_POLL_SECONDS = 1.5
_LOST_WORKERS = 2
# A worker gives a cancelled coordinator 30 s before it kills it.
_CANCEL_SECONDS = 20.0


class GpuPool(Elsewhere):
    """Trains in deployment train/gpu; everything else runs inline."""

    name = "gpu-pool"

    def __init__(self, *, poll: float = _POLL_SECONDS) -> None:
        self._poll = poll
        with prefect_api.api() as client:
            try:
                client.read_deployment_by_name(prefect_api.TRAIN_DEPLOYMENT)
            except ObjectNotFound:
                raise FoundryError(
                    f"the server at {prefect_api.server_url()} has no deployment "
                    f"{prefect_api.TRAIN_DEPLOYMENT!r}",
                    "start `foundry serve`, or apply deploy/prefect.yaml to that server",
                ) from None

    def train(
        self, job: StageJob, store: Store, observe: Observer, cancelled: threading.Event
    ) -> Outcome:
        def told(note: str) -> None:
            observe({"message": note})

        lost = 0
        while True:
            run, ours = prefect_api.patiently(
                lambda: self._submit(job, store), told, prefect_api.OUTAGE_SECONDS
            )
            try:
                end = self._wait(run.id, job, observe, told, cancelled)
            except Interrupted:
                # What another run has submitted is that run's: it may still be waited for.
                if ours:
                    self._cancel(run.id, job)
                raise
            if end.state.is_completed():
                return outcome_of(job, store)
            if end.state.is_failed():
                raise self._failure(job, store, end)
            if end.state.is_cancelled() and ours:
                raise Interrupted(f"stage {job.spec.name!r}: its training was cancelled in Prefect")
            if end.state.is_crashed():
                lost += 1
                if lost > _LOST_WORKERS:
                    raise self._failure(job, store, end)
                told(f"its worker was lost; again from the last checkpoint ({lost})")

    def _submit(self, job: StageJob, store: Store) -> tuple[FlowRun, bool]:
        """The open run of this key, or a new one; and whether this call created it. Two callers at
        the same moment get the same run: they choose the same idempotency key."""
        tag = f"key:{job.spec.key}"
        key_filter = FlowRunFilter(tags=FlowRunFilterTags(all_=[tag]))
        with prefect_api.api() as client:
            known = client.read_flow_runs(flow_run_filter=key_filter)
        for run in known:
            if run.state and not run.state.is_final():
                return run, False
        number = max((attempt_number(run.idempotency_key) for run in known), default=0) + 1
        submitted = run_deployment(
            prefect_api.TRAIN_DEPLOYMENT,
            parameters={"job": job_to_json(job), "store": store.uri},
            flow_run_name=f"{job.spec.name} {job.spec.key[:12]}",
            tags=["train", f"stage:{job.spec.name}", tag],
            idempotency_key=f"{job.spec.key}-a{number}",
            timeout=0,
        )
        return submitted, (submitted.parameters or {}).get("job", {}).get("run_id") == job.run_id

    def _wait(
        self,
        run_id: UUID,
        job: StageJob,
        observe: Observer,
        told: Callable[[str], None],
        cancelled: threading.Event,
    ) -> FlowRun:
        """Polls until the run has ended. A server that is away for minutes is waited for."""
        shown = ""
        while True:
            if cancelled.is_set():
                raise Interrupted(f"stage {job.spec.name!r} was cancelled")
            run, progress = prefect_api.patiently(
                lambda: _look(run_id), told, prefect_api.OUTAGE_SECONDS
            )
            if run is None or run.state is None:
                raise Interrupted(f"stage {job.spec.name!r}: its flow run was deleted in Prefect")
            if run.state.is_final():
                return run
            if progress:
                observe(progress)
            elif run.state.name != shown:
                shown = run.state.name or ""
                observe({"message": f"{shown.lower()} in {prefect_api.GPU_POOL}"})
            cancelled.wait(self._poll)

    def _cancel(self, run_id: UUID, job: StageJob) -> None:
        """Waits for the end, so that the lease is free when this returns. A server that is away
        cannot be told: then the reaper finds a training without a coordinator."""
        deadline = time.monotonic() + _CANCEL_SECONDS
        with contextlib.suppress(FoundryError):
            prefect_api.cancel_run(run_id, f"run {job.run_id} was cancelled")
            while time.monotonic() < deadline:
                run = prefect_api.read_run(run_id)
                if run is None or run.state is None or run.state.is_final():
                    return
                time.sleep(self._poll)

    def _failure(self, job: StageJob, store: Store, run: FlowRun) -> StageFailed:
        message = (run.state.message if run.state else "") or "no reason given"
        # The stage's own words where it failed; else what became of the flow run.
        error = store.last_failure(job.spec.key) if StageFailed.__name__ in message else None
        where = f"flow run {run.name!r} in {prefect_api.GPU_POOL}"
        return StageFailed(job.spec.name, error or message, f"see {where}", job.log)


def attempt_number(idempotency_key: str | None) -> int:
    """<key>-a3 → 3; 0 for a key that is not ours."""
    number = (idempotency_key or "").rpartition("-a")[2]
    return int(number) if number.isdecimal() else 0


def _look(run_id: UUID) -> tuple[FlowRun | None, dict[str, Any] | None]:
    """The run and its progress as an observer takes it."""
    mine = ArtifactFilter(
        flow_run_id=ArtifactFilterFlowRunId(any_=[run_id]),
        type=ArtifactFilterType(any_=["progress"]),
    )
    with prefect_api.api() as client:
        try:
            run = client.read_flow_run(run_id)
        except ObjectNotFound:
            return None, None
        found = client.read_artifacts(artifact_filter=mine, limit=1)
    return run, read_progress(found[0].data, found[0].description) if found else None
