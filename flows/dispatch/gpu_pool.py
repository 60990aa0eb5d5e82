"""Stages with GPUs on a worker of Prefect's work pool `gpu-pool`, as runs of deployment train/gpu.

The coordinator only waits: it holds no slot of the pool, and the pool's limit says how many stages
run at once. One key is one run at a time, whoever asks: its idempotency key makes two coordinators
share it.
"""

from collections.abc import Sequence
from uuid import UUID

from flows.dispatch.remote import RemoteBackend, Status, Submission, next_name
from flows.prefect import api as prefect_api
from flows.prefect.pools import has_deployment, why_waiting
from flows.processes import wait_until
from foundry_core.errors import FoundryError
from foundry_core.execution.job import StageFailed, StageJob
from foundry_core.pipeline.stage import Resources
from foundry_core.store.base import Store

# A worker gives a cancelled coordinator 30 s before it kills it.
_CANCEL_SECONDS = 20.0


class GpuPool(RemoteBackend):
    """Needs a server with Foundry's deployments: `foundry serve`."""

    name = prefect_api.GPU_POOL
    poll_seconds = 1.5

    def __init__(self) -> None:
        if not has_deployment(prefect_api.TRAIN_DEPLOYMENT):
            raise FoundryError(
                f"the server at {prefect_api.server_url()} has no deployment "
                f"{prefect_api.TRAIN_DEPLOYMENT!r}",
                "start `foundry serve`, or apply deploy/prefect.yaml to that server",
            )

    def check(self, stage: str, resources: Resources) -> None:
        """How many GPUs the machines of a pool have, Prefect does not know: a stage that asks for
        more than its worker's machine has is refused there."""
        super().check(stage, resources)
        if self.remote(resources) and why_waiting(self.name) is None:
            raise FoundryError(
                f"stage {stage!r} asks for {resources.gpus:g} GPUs, the server at "
                f"{prefect_api.server_url()} has no work pool {self.name!r}",
                "start `foundry serve`, or create the pool (docs/deployment.md)",
            )

    def notes(self, stage: str, resources: Resources) -> Sequence[str]:
        why = why_waiting(self.name) if self.remote(resources) else ""
        return (*super().notes(stage, resources), *([f"waits: {why}"] if why else []))

    def submit(self, job: StageJob, store: Store) -> Submission:
        """Two callers at the same moment get the same run: they choose the same idempotency key."""
        tag = f"key:{job.spec.key}"
        known = prefect_api.open_runs(tags=[tag], states=prefect_api.StateType)
        for run in known:
            if run.state and not run.state.is_final():
                return Submission(ref=str(run.id), mine=False)
        started = prefect_api.start_training(
            {"job": job.to_json(), "store": store.uri},
            name=f"{job.spec.name} {job.spec.key[:12]}",
            tags=["train", f"stage:{job.spec.name}", tag],
            idempotency_key=next_name(job.spec.key, (run.idempotency_key for run in known)),
        )
        owner = (started.parameters or {}).get("job", {}).get("run_id")
        return Submission(ref=str(started.id), mine=owner == job.run_id)

    def status(self, submission: Submission) -> Status:
        """A run that was deleted counts as cancelled, a crashed one as lost."""
        run, progress = prefect_api.read_run_and_progress(UUID(submission.ref))
        if run is None or run.state is None:
            return Status(state="cancelled", message="its flow run was deleted in Prefect")
        state, message = run.state, run.state.message or ""
        if not state.is_final():
            return Status(state="open", progress=progress or self._waiting(state))
        if state.is_completed():
            return Status(state="completed")
        if state.is_failed():
            own = StageFailed.__name__ in message
            return Status(state="failed", message=message, stage_failed=own)
        return Status(state="cancelled" if state.is_cancelled() else "lost", message=message)

    def _waiting(self, state: prefect_api.State) -> dict[str, str]:
        why = (why_waiting(self.name) or "") if state.is_scheduled() else ""
        return {"message": f"{(state.name or '').lower()} in {self.name}{why and f': {why}'}"}

    def cancel(self, submission: Submission, reason: str) -> None:
        run_id = UUID(submission.ref)
        prefect_api.cancel_run(run_id, reason)
        wait_until(lambda: prefect_api.has_ended(run_id), _CANCEL_SECONDS, self.poll_seconds)

    def describe(self, submission: Submission) -> str:
        return f"flow run {submission.ref} in {self.name}"

    def away(self, error: Exception) -> bool:
        return prefect_api.away(error)


BACKEND = GpuPool
