"""Work pools, deployments and the zombie automation on the configured Prefect server.

flows/prefect.yaml is their only description (deploy/prefect.yaml is a link to it). Applying is
idempotent: a server that has them is brought up to date.
"""

import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import flows.prefect.settings  # noqa: F401  (Prefect reads its settings once, on import)

# isort: split
import yaml
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import (
    AutomationCore,
    EventTrigger,
    Posture,
    ResourceSpecification,
)
from prefect.exceptions import ObjectNotFound
from prefect.flows import load_flow_from_entrypoint
from prefect.workers.process import ProcessWorker

from flows.prefect.api import GPU_POOL, PIPELINE_POOL, api

FILE = Path(__file__).with_name("prefect.yaml")
HEARTBEAT_SECONDS = 30
# Generous: it is for runs of other machines; the reaper finds a dead process here in a minute.
_SILENT_SECONDS = 300
_ZOMBIES = "Foundry: crash flow runs that fell silent"


def declared() -> list[dict[str, Any]]:
    """The deployments of flows/prefect.yaml."""
    return yaml.safe_load(FILE.read_text())["deployments"]


def full_name(entry: Mapping[str, Any]) -> str:
    """`foundry/full`: the name of the entry's flow and its own."""
    flow = load_flow_from_entrypoint(entry["entrypoint"], use_placeholder_flow=False)
    return f"{flow.name}/{entry['name']}"


def apply(directory: Path, *, gpu_limit: int | None, parallel_runs: int | None = None) -> list[str]:
    """Creates or updates everything; the deployments' full names. directory: where relative paths
    in parameters start. gpu_limit: how many trainings run at once (None: no limit)."""
    with api() as client:
        _pool(client, PIPELINE_POOL, parallel_runs, "Coordinators: full pipelines and ablations")
        _pool(client, GPU_POOL, gpu_limit, "Training; the limit is how many run at once")
        names = [_deployment(client, entry, directory) for entry in declared()]
        _automation(client)
    return names


def _pool(client: SyncPrefectClient, name: str, limit: int | None, description: str) -> None:
    template = ProcessWorker.get_default_base_job_template()
    try:
        client.read_work_pool(name)
    except ObjectNotFound:
        pool = WorkPoolCreate(
            name=name,
            type="process",
            base_job_template=template,
            concurrency_limit=limit,
            description=description,
        )
        client.create_work_pool(pool)
    else:
        update = WorkPoolUpdate(
            base_job_template=template, concurrency_limit=limit, description=description
        )
        client.update_work_pool(name, update)


def _deployment(client: SyncPrefectClient, entry: Mapping[str, Any], directory: Path) -> str:
    flow = load_flow_from_entrypoint(entry["entrypoint"], use_placeholder_flow=False)
    pool = entry["work_pool"]
    client.create_deployment(
        flow_id=client.create_flow(flow),
        name=entry["name"],
        description=entry["description"],
        tags=entry["tags"],
        entrypoint=entry["entrypoint"],
        work_pool_name=pool["name"],
        job_variables=_local(pool["job_variables"], directory),
        parameter_openapi_schema=flow.parameters.model_dump_for_openapi(),
        enforce_parameter_schema=True,
    )
    return f"{flow.name}/{entry['name']}"


def _local(job: Mapping[str, Any], directory: Path) -> dict[str, Any]:
    """This interpreter, not the first `python` on a PATH; and not Prefect's temporary folder."""
    words = job["command"].split()
    words[0] = sys.executable if words[0] == "python" else words[0]
    return {**job, "command": " ".join(words), "working_dir": str(directory)}


def _automation(client: SyncPrefectClient) -> None:
    """Runs anywhere that send no heartbeat any more are marked crashed."""
    ends = ("Completed", "Failed", "Cancelled", "Crashed", "Cancelling", "Suspended", "Paused")
    trigger = EventTrigger(
        after={"prefect.flow-run.heartbeat"},
        expect={"prefect.flow-run.heartbeat", *(f"prefect.flow-run.{end}" for end in ends)},
        match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=_SILENT_SECONDS),
    )
    action = ChangeFlowRunState(
        state=StateType.CRASHED, message=f"no heartbeat for {_SILENT_SECONDS} s"
    )
    wanted = AutomationCore(
        name=_ZOMBIES,
        description="The reaper's counterpart for runs on other machines",
        trigger=trigger,
        actions=[action],
    )
    found = client.read_automations_by_name(_ZOMBIES)
    if found:
        client.update_automation(found[0].id, wanted)
    else:
        client.create_automation(wanted)
