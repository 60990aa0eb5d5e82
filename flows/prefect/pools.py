"""Work pools, deployments and automations of the configured server: looked up, created, updated."""

import contextlib
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

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
from prefect.flows import Flow, load_flow_from_entrypoint

from flows.prefect.api import api

Client = SyncPrefectClient
_ENDS = ("Completed", "Failed", "Cancelled", "Crashed", "Cancelling", "Suspended", "Paused")


def load_flow(entrypoint: str) -> Flow[..., Any]:
    """The flow at a dotted path."""
    flow: Flow[..., Any] = load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False)
    return flow


def process_pools() -> set[str]:
    """Names of the pools whose workers start plain processes."""
    with api() as client:
        return {pool.name for pool in client.read_work_pools() if pool.type == "process"}


def online_workers(pool: str) -> list[str] | None:
    """Names of the workers that poll a pool; None when there is no such pool."""
    with api() as client, contextlib.suppress(ObjectNotFound):
        client.read_work_pool(pool)
        found = client.read_workers_for_work_pool(pool)
        return [worker.name for worker in found if worker.status == "ONLINE"]
    return None


def why_waiting(pool: str) -> str | None:
    """Why a pool takes up no run now, with the mend; '' when it may at any moment, None when there
    is no such pool."""
    with api() as client, contextlib.suppress(ObjectNotFound):
        found = client.read_work_pool(pool)
        if found.is_paused:
            return f"{pool} is paused: `prefect work-pool resume {pool}`"
        if found.concurrency_limit == 0:
            return f"{pool} takes no runs, its limit is 0: `prefect work-pool update {pool}`"
        if not online_workers(pool):
            return f"{pool} has no worker online: start `foundry serve`, or a worker of that pool"
        return ""
    return None


def pool_limits() -> dict[str, int | None]:
    """Every pool → how many runs it takes at once, None without a limit."""
    with api() as client:
        return {pool.name: pool.concurrency_limit for pool in client.read_work_pools()}


def has_deployment(name: str) -> bool:
    """name: `<flow>/<deployment>`."""
    with api() as client, contextlib.suppress(ObjectNotFound):
        client.read_deployment_by_name(name)
        return True
    return False


def put_pool(client: Client, name: str, limit: int | None, description: str) -> None:
    """Creates or updates a pool of processes. Its template has no variables: the server refuses
    deployments and flow runs that would set a command, an environment or a folder, and the worker
    has its own (flows/prefect/worker.py)."""
    settings: dict[str, Any] = {
        "base_job_template": {
            "job_configuration": {"stream_output": True},
            "variables": {"type": "object", "properties": {}, "additionalProperties": False},
        },
        "concurrency_limit": limit,
        "description": description,
    }
    try:
        client.read_work_pool(name)
    except ObjectNotFound:
        client.create_work_pool(WorkPoolCreate(name=name, type="process", **settings))
    else:
        client.update_work_pool(name, WorkPoolUpdate(**settings))


def put_deployment(
    client: Client, entry: Mapping[str, Any], form: Callable[[dict[str, Any]], dict[str, Any]]
) -> str:
    """Creates or updates a deployment as prefect.yaml declares it; its full name. form: changes the
    schema of what a person fills in."""
    flow = load_flow(entry["entrypoint"])
    client.create_deployment(
        flow_id=client.create_flow(flow),
        name=entry["name"],
        description=entry["description"],
        tags=entry["tags"],
        entrypoint=entry["entrypoint"],
        work_pool_name=entry["work_pool"]["name"],
        job_variables={},
        parameter_openapi_schema=form(flow.parameters.model_dump_for_openapi()),
        enforce_parameter_schema=True,
    )
    return f"{flow.name}/{entry['name']}"


def put_silence_automation(client: Client, name: str, description: str, seconds: int) -> None:
    """Creates or updates the automation that marks flow runs crashed, anywhere, that send no
    heartbeat for so long."""
    trigger = EventTrigger(
        after={"prefect.flow-run.heartbeat"},
        expect={"prefect.flow-run.heartbeat", *(f"prefect.flow-run.{end}" for end in _ENDS)},
        match=ResourceSpecification({"prefect.resource.id": ["prefect.flow-run.*"]}),
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=seconds),
    )
    action = ChangeFlowRunState(state=StateType.CRASHED, message=f"no heartbeat for {seconds} s")
    wanted = AutomationCore(name=name, description=description, trigger=trigger, actions=[action])
    found = client.read_automations_by_name(name)
    if found:
        client.update_automation(found[0].id, wanted)
    else:
        client.create_automation(wanted)
