"""Stages with GPUs as jobs of a Ray cluster (Ray Jobs API), with GPUs counted by Ray.

Cluster and coordinator share the store, and the cluster's image has Foundry installed.
"""

import contextlib
import json
import os
import shlex
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from flows import processes
from flows.dispatch.base import in_config
from flows.dispatch.remote import RemoteBackend, Status, Submission, next_name
from flows.dispatch.slots import cpus_of, workers_of
from foundry_core.errors import FoundryError
from foundry_core.execution.job import StageJob
from foundry_core.execution.python import python_command
from foundry_core.execution.ray_entry import FAILED, STOPPED, last_progress
from foundry_core.pipeline.stage import Resources
from foundry_core.store.base import Store

ADDRESS = "http://127.0.0.1:8265"
_OPEN = (JobStatus.PENDING, JobStatus.RUNNING)
_STOP_SECONDS = 20.0
_STATUS_SECONDS = 10.0
# What the job needs to find the same things as this process.
_PASSED_ON = ("FOUNDRY_STORE", "FOUNDRY_KINDS", "FOUNDRY_PATH", "PYTHONPATH")
_AWAY = (ConnectionError, OSError)
# A closed port, an answer that is no success, a token that is not the cluster's, no address.
_REFUSED = (*_AWAY, RuntimeError, AuthenticationError, ValueError)


class RayJob(RemoteBackend):
    """Needs a cluster at RAY_API_SERVER_ADDRESS."""

    name = "ray-job"
    poll_seconds = 3.0

    def __init__(self, *, address: str | None = None) -> None:
        self._address = address or os.environ.get("RAY_API_SERVER_ADDRESS") or ADDRESS
        self._client = connect(self._address)
        # By submission: files that say to the reaper that this process waits for it.
        self._entries: dict[str, processes.Entry] = {}

    def check(self, stage: str, resources: Resources) -> None:
        """Ray would let a job wait for ever that asks for more than the cluster has. One that adds
        nodes by itself is not held to those it has now."""
        super().check(stage, resources)
        cluster = self._cluster() if self.remote(resources) else None
        if cluster is None or cluster.grows:
            return
        for name, wanted in wanted_of(resources).items():
            several = workers_of(resources) > 1
            present = cluster.most(name, together=several)
            if wanted > present:
                where = "all its nodes together have" if several else "its largest node has"
                raise FoundryError(
                    f"stage {stage!r} asks for {wanted:g} {name}s; of the Ray cluster at "
                    f"{self._address}, {where} {present:g}",
                    f"lower {in_config(stage)}.resources, or add nodes that have them",
                )

    def notes(self, stage: str, resources: Resources) -> Sequence[str]:
        cluster = self._cluster() if self.remote(resources) else None
        if cluster is None:
            return super().notes(stage, resources)
        busy = [
            f"{used:g} of {total:g} {name}s"
            for name, wanted in wanted_of(resources).items()
            for used, total in [cluster.use(name)]
            if total - used < wanted
        ]
        return (f"waits: the cluster works with {', '.join(busy)}",) if busy else ()

    def _cluster(self) -> "Cluster | None":
        """What the cluster has; None when its dashboard does not say."""
        with self._reached():
            return read_cluster(self._address)

    def submit(self, job: StageJob, store: Store) -> Submission:
        """A coordinator that is started again finds the job of its key."""
        key = job.spec.key
        with self._reached():
            known = self._client.list_jobs()
            jobs = [one for one in known if (one.submission_id or "").startswith(f"{key}-a")]
            name = next((one.submission_id for one in jobs if one.status in _OPEN), None)
            if name is None:
                name = next_name(key, (one.submission_id for one in jobs))
                self._start(name, job, store)
        # Another coordinator of this machine may wait for it, too: then it is that one's.
        others = [one for one in processes.entries("ray-job") if one.id == name and not one.dead]
        if not others:
            facts = {"address": self._address, "run_id": job.run_id}
            self._entries[name] = processes.record("ray-job", name, facts=facts)
        return Submission(ref=name, mine=not others)

    def _start(self, name: str, job: StageJob, store: Store) -> None:
        sent = {"job": job.to_json(), "store": store.uri}
        variables = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        variables |= {"FOUNDRY_JOB": json.dumps(sent), "FOUNDRY_RAY_JOB": name}
        self._client.submit_job(
            entrypoint=self._entrypoint(),
            submission_id=name,
            runtime_env={"env_vars": variables},
            metadata={"stage": job.spec.name, "run": job.run_id},
            **reservation(job.resources),
        )

    def _entrypoint(self) -> str:
        """On this machine the interpreter that runs now; elsewhere the image's own."""
        python, *rest = python_command("foundry_core.execution.ray_entry")
        here = urlsplit(self._address).hostname in ("127.0.0.1", "localhost")
        return shlex.join([python if here else "python", *rest])

    def status(self, submission: Submission) -> Status:
        """Also says, by its file, that this process still waits."""
        with self._reached():
            details = self._client.get_job_info(submission.ref)
            if details.status == JobStatus.PENDING:
                waiting = f"queued in Ray: {details.message or 'waits for resources'}"
                progress: dict[str, Any] | None = {"message": waiting}
            elif details.status == JobStatus.RUNNING:
                progress = last_progress(self._client.get_job_logs(submission.ref))
            else:
                return _end(details)
        if submission.ref in self._entries:
            self._entries[submission.ref].touch()
        return Status(state="open", progress=progress)

    def cancel(self, submission: Submission, reason: str) -> None:
        stop_job(self._address, submission.ref)

    def describe(self, submission: Submission) -> str:
        return f"`ray job logs {submission.ref}`"

    def away(self, error: Exception) -> bool:
        return isinstance(error.__cause__, _AWAY)

    def release(self, submission: Submission) -> None:
        if entry := self._entries.pop(submission.ref, None):
            entry.forget()

    @contextlib.contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except _AWAY as error:
            raise _unreachable(self._address, error) from error


def wanted_of(resources: Resources) -> dict[str, float]:
    """What a stage needs of a cluster, all its workers together."""
    wanted = {"GPU": resources.gpus, "CPU": float(cpus_of(resources))}
    return {name: number for name, number in wanted.items() if number}


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What a cluster has and what of it is taken. nodes: of each, resource → (used, total).
    grows: whether an autoscaler adds nodes."""

    nodes: Sequence[Mapping[str, Sequence[float]]]
    grows: bool

    def use(self, name: str) -> tuple[float, float]:
        """(used, total) of all nodes."""
        parts = [node.get(name, (0.0, 0.0)) for node in self.nodes]
        return sum(part[0] for part in parts), sum(part[1] for part in parts)

    def most(self, name: str, *, together: bool) -> float:
        """What workers on any nodes can have together, or one process on one of them."""
        parts = [node.get(name, (0.0, 0.0))[1] for node in self.nodes]
        return sum(parts) if together else max(parts, default=0.0)


def read_cluster(address: str) -> Cluster | None:
    """As the dashboard knows it; None when it does not, as before the first report of a node."""
    url = f"{address.rstrip('/')}/api/cluster_status"
    request = urllib.request.Request(url, headers=_headers() or {})
    with urllib.request.urlopen(request, timeout=_STATUS_SECONDS) as answer:
        status = (json.load(answer).get("data") or {}).get("clusterStatus") or {}
    nodes = (status.get("loadMetricsReport") or {}).get("usageByNode") or {}
    if not nodes:
        return None
    # Where nobody adds nodes, Ray makes a type of each of them: node_<id>, in camel case.
    active = (status.get("autoscalerReport") or {}).get("activeNodes") or {}
    fixed = {f"node{name}".lower() for name in nodes}
    grows = any(kind.replace("_", "").lower() not in fixed for kind in active)
    return Cluster(nodes=list(nodes.values()), grows=grows)


def _end(details: JobDetails) -> Status:
    message = details.message or ""
    if details.status == JobStatus.SUCCEEDED:
        return Status(state="completed")
    if details.status == JobStatus.STOPPED or details.driver_exit_code == STOPPED:
        return Status(state="cancelled", message=message)
    if details.driver_exit_code == FAILED:
        return Status(state="failed", message=message, stage_failed=True)
    return Status(state="lost", message=message)


def reservation(resources: Resources) -> dict[str, Any]:
    """What the job's own process reserves. With several workers Ray Train reserves for each of
    them, and the process that starts them does nothing."""
    if workers_of(resources) > 1:
        return {"entrypoint_num_cpus": 0}
    gpus = {"entrypoint_num_gpus": resources.gpus} if resources.gpus else {}
    return {"entrypoint_num_cpus": resources.cpus, **gpus}


def connect(address: str) -> JobSubmissionClient:
    """FoundryError when no cluster takes jobs there."""
    try:
        return JobSubmissionClient(address, headers=_headers())
    except _REFUSED as error:
        raise _unreachable(address, error) from error


def _headers() -> dict[str, str] | None:
    """Given here: Ray itself looks at RAY_AUTH_MODE once, when it is first imported."""
    token = os.environ.get("RAY_AUTH_TOKEN")
    return {"Authorization": f"Bearer {token}"} if token else None


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
        processes.wait_until(lambda: client.get_job_status(name) not in _OPEN, _STOP_SECONDS, 0.5)
    except (FoundryError, *_REFUSED):
        return False
    return True


BACKEND = RayJob
