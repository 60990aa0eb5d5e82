"""The workers of `foundry serve`. They start Foundry's own flows with Foundry's own command: what a
deployment, a flow run or the pool's template says of commands, variables and folders is not read.

The body of a process of its own.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun, WorkPool
from prefect.client.schemas.responses import DeploymentResponse
from prefect.settings import PREFECT_WORKER_HEARTBEAT_SECONDS
from prefect.workers.process import ProcessJobConfiguration, ProcessWorker

from flows import signals
from foundry_core.errors import FoundryError

# Entrypoint of each deployment that may be run → the job variables that it is declared with.
Declared = Mapping[str, Mapping[str, Any]]


def work(pool: str, name: str, command: str, declared: Declared) -> None:
    """Polls `pool` until it is told to end. command: starts one flow run in the current folder."""
    worker = ProcessWorker(
        work_pool_name=pool,
        name=name,
        heartbeat_interval_seconds=int(PREFECT_WORKER_HEARTBEAT_SECONDS.value()),
        create_pool_if_not_found=False,
    )
    worker.job_configuration = _locked(command, declared)
    asyncio.run(_until_stopped(worker))


async def _until_stopped(worker: ProcessWorker) -> None:
    work = asyncio.ensure_future(worker.start())
    loop = asyncio.get_running_loop()
    signals.ended_by_parent(lambda: loop.call_soon_threadsafe(work.cancel))
    with contextlib.suppress(asyncio.CancelledError):
        await work


def _locked(command: str, declared: Declared) -> type[ProcessJobConfiguration]:
    """The configuration of every job of a worker."""

    class LockedJob(ProcessJobConfiguration):
        @classmethod
        async def resolve_for_flow_run(
            cls,
            flow_run: FlowRun,
            *,
            client: PrefectClient,
            work_pool: WorkPool,
            worker_name: str,
            worker_id: UUID | None = None,
            deployment: DeploymentResponse | None = None,
        ) -> Any:
            if deployment is None and flow_run.deployment_id is not None:
                deployment = await client.read_deployment(flow_run.deployment_id)
            if why := refusal(flow_run, deployment, declared):
                raise FoundryError(f"refused: {why}", "start it as `foundry serve` declares it")
            flow = await client.read_flow(flow_run.flow_id)
            job = cls(command=command, working_dir=Path.cwd())
            job.prepare_for_flow_run(
                flow_run, deployment, flow, work_pool, worker_name, worker_id=worker_id
            )
            return job

    return LockedJob


def refusal(flow_run: FlowRun, deployment: DeploymentResponse | None, declared: Declared) -> str:
    """Why a flow run may not be started here; empty when it may."""
    if deployment is None:
        return "the flow run belongs to no deployment"
    if flow_run.job_variables:
        return f"the flow run sets job variables ({', '.join(flow_run.job_variables)})"
    entrypoint = deployment.entrypoint or ""
    if entrypoint not in declared:
        return f"the deployment's entrypoint {entrypoint!r} is none of Foundry's"
    if deployment.job_variables not in ({}, declared[entrypoint]):
        return f"the deployment sets job variables ({', '.join(deployment.job_variables)})"
    if deployment.pull_steps or deployment.storage_document_id or deployment.path:
        return "the deployment fetches code of its own"
    return ""
