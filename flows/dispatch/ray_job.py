"""Training as a job of a Ray cluster (Ray Jobs API), with GPUs counted by Ray.

The submission id is <key>-a<n>: a coordinator that is started again finds the job of its key and
waits for it instead of starting a second one. Cluster and coordinator share the store, and the
cluster's image has Foundry installed.
"""

import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import urlsplit

from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from flows import processes
from flows.dispatch.base import Elsewhere
from foundry_core.errors import FoundryError
from foundry_core.execution.job import Interrupted, Observer, Outcome, StageFailed, StageJob
from foundry_core.execution.ray_entry import FAILED, STOPPED, last_progress
from foundry_core.execution.transport import job_to_json, outcome_of
from foundry_core.pipeline.registry import stage_kind
from foundry_core.pipeline.stage import Resources
from foundry_core.store.local import Store

ADDRESS = "http://127.0.0.1:8265"
_OPEN = (JobStatus.PENDING, JobStatus.RUNNING)
_POLL_SECONDS = 3.0
_OUTAGE_SECONDS = 600.0
_STOP_SECONDS = 20.0
_LOST_JOBS = 2
# What the job needs to find the same things as this process.
_PASSED_ON = ("FOUNDRY_STORE", "FOUNDRY_KINDS", "PYTHONPATH")
# A closed port, an answer that is no success, a token that is not the cluster's.
_REFUSED = (ConnectionError, OSError, RuntimeError, AuthenticationError)
T = TypeVar("T")


class RayJobs(Elsewhere):
    """Trains in Ray jobs; everything else runs inline."""

    name = "ray-job"

    def __init__(self, *, address: str | None = None, poll: float = _POLL_SECONDS) -> None:
        self._address = address or os.environ.get("RAY_API_SERVER_ADDRESS") or ADDRESS
        self._poll = poll
        self._client = connect(self._address)

    def train(
        self, job: StageJob, store: Store, observe: Observer, cancelled: threading.Event
    ) -> Outcome:
        for lost in range(_LOST_JOBS + 1):
            if lost:
                observe({"message": f"its job died; again from the last checkpoint ({lost})"})
            name = self._submit(job, store)
            end = self._followed(name, job, observe, cancelled)
            if end.status == JobStatus.SUCCEEDED:
                return outcome_of(job, store)
            if end.status == JobStatus.STOPPED or end.driver_exit_code == STOPPED:
                raise Interrupted(f"stage {job.spec.name!r}: its job {name} was stopped")
            if end.driver_exit_code == FAILED:
                break
        error = store.last_failure(job.spec.key) or end.message or "no reason given"
        raise StageFailed(job.spec.name, error, f"see `ray job logs {name}`", job.log)

    def _submit(self, job: StageJob, store: Store) -> str:
        """The id of the key's open job, or of a new one."""
        known = [one for one in self._ask(self._client.list_jobs) if _is_of(one, job.spec.key)]
        for one in known:
            if one.status in _OPEN:
                return one.submission_id
        number = max((_number(one.submission_id) for one in known), default=0) + 1
        resources = stage_kind(job.spec.kind).Resources.model_validate(job.resources)
        name = f"{job.spec.key}-a{number}"
        sent = {"job": job_to_json(job), "store": store.uri}
        variables = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        variables |= {"FOUNDRY_JOB": json.dumps(sent), "FOUNDRY_RAY_JOB": name}
        self._ask(
            lambda: self._client.submit_job(
                entrypoint=f"{self._python()} -m foundry_core.execution.ray_entry",
                submission_id=name,
                runtime_env={"env_vars": variables},
                metadata={"stage": job.spec.name, "run": job.run_id},
                **reservation(resources),
            )
        )
        return name

    def _python(self) -> str:
        """On this machine the interpreter that runs now; elsewhere the image's own."""
        here = urlsplit(self._address).hostname in ("127.0.0.1", "localhost")
        return sys.executable if here else "python"

    def _followed(
        self, name: str, job: StageJob, observe: Observer, cancelled: threading.Event
    ) -> JobDetails:
        """Waits for the end. Cancelled, it stops the job, unless another living coordinator of
        this machine waits for it too."""
        others = [one for one in processes.entries("ray-job") if one.id == name and not one.dead]
        entry = None
        if not others:
            facts = {"address": self._address, "run_id": job.run_id}
            entry = processes.record("ray-job", name, **facts)
        try:
            while True:
                details = self._ask(lambda: self._client.get_job_info(name))
                if details.status not in _OPEN:
                    return details
                if cancelled.is_set():
                    if entry:
                        stop_job(self._address, name)
                    raise Interrupted(f"stage {job.spec.name!r} was cancelled")
                self._show(name, details, observe)
                if entry:
                    entry.touch()
                cancelled.wait(self._poll)
        finally:
            if entry:
                entry.forget()

    def _show(self, name: str, details: JobDetails, observe: Observer) -> None:
        if details.status == JobStatus.PENDING:
            observe({"message": f"queued in Ray: {details.message or 'waits for resources'}"})
            return
        progress = last_progress(self._ask(lambda: self._client.get_job_logs(name)))
        if progress:
            observe(progress)

    def _ask(self, call: Callable[[], T]) -> T:
        """call(), repeated while the cluster's head is away for at most ten minutes."""
        deadline = time.monotonic() + _OUTAGE_SECONDS
        while True:
            try:
                return call()
            except (ConnectionError, OSError) as error:
                if time.monotonic() > deadline:
                    raise _unreachable(self._address, error) from error
                time.sleep(self._poll)


def reservation(resources: Resources) -> dict[str, float]:
    """What the job's own process reserves. With several workers Ray Train reserves for each of
    them, and the process that starts them does nothing."""
    if getattr(resources, "workers", 1) > 1:
        return {"entrypoint_num_cpus": 0}
    gpus = {"entrypoint_num_gpus": resources.gpus} if resources.gpus else {}
    return {"entrypoint_num_cpus": resources.cpus, **gpus}


def connect(address: str) -> JobSubmissionClient:
    # Said explicitly: Ray itself looks at RAY_AUTH_MODE once, when it is first imported.
    token = os.environ.get("RAY_AUTH_TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else None
    try:
        return JobSubmissionClient(address, headers=headers)
    except _REFUSED as error:
        raise _unreachable(address, error) from error


def _unreachable(address: str, error: Exception) -> FoundryError:
    words = str(error).strip().splitlines()
    return FoundryError(
        f"no Ray cluster takes jobs at {address} ({words[0] if words else type(error).__name__})",
        "set RAY_API_SERVER_ADDRESS; RAY_AUTH_MODE and RAY_AUTH_TOKEN must be the same for head, "
        "workers and here",
    )


def stop_job(address: str, name: str) -> bool:
    """Stops a job and waits for its end; False when it had ended, or the cluster is gone."""
    try:
        client = connect(address)
        if client.get_job_status(name) not in _OPEN:
            return False
        client.stop_job(name)
        deadline = time.monotonic() + _STOP_SECONDS
        while client.get_job_status(name) in _OPEN and time.monotonic() < deadline:
            time.sleep(0.5)
    except (FoundryError, *_REFUSED):
        return False
    return True


def _is_of(details: JobDetails, key: str) -> bool:
    return (details.submission_id or "").startswith(f"{key}-a")


def _number(submission_id: str) -> int:
    with contextlib.suppress(ValueError):
        return int(submission_id.rpartition("-a")[2])
    return 0
