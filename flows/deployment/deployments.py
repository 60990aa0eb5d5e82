"""Foundry's work pools, deployments and zombie automation on the configured Prefect server.

flows/prefect.yaml is their only description (deploy/prefect.yaml is a link to it). Applying is
idempotent: a server that has them is brought up to date.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from flows.prefect import pools
from flows.prefect.api import GPU_POOL, PIPELINE_POOL, api

FILE = Path(__file__).parents[1] / "prefect.yaml"
# Generous: it is for runs of other machines; the reaper finds a dead process here in a minute.
_SILENT_SECONDS = 300
_ZOMBIES = "Foundry: crash flow runs that fell silent"


def declared() -> list[dict[str, Any]]:
    """The deployments of flows/prefect.yaml."""
    return yaml.safe_load(FILE.read_text())["deployments"]


def full_name(entry: Mapping[str, Any]) -> str:
    """`foundry/full`: the name of the entry's flow and its own."""
    return f"{pools.load_flow(entry['entrypoint']).name}/{entry['name']}"


def job_variables() -> dict[str, dict[str, Any]]:
    """Entrypoint of each declared deployment → its job variables."""
    return {one["entrypoint"]: one["work_pool"]["job_variables"] for one in declared()}


def apply(*, gpu_limit: int) -> list[str]:
    """Creates or updates everything; the deployments' full names. gpu_limit: how many GPU stages
    run at once."""
    with api() as client:
        for pool, limit, about in (
            (PIPELINE_POOL, None, "Coordinators: full pipelines and ablations"),
            (GPU_POOL, gpu_limit, "Stages with GPUs; the limit is how many run at once"),
        ):
            pools.put_pool(client, pool, limit, about)
        names = [pools.put_deployment(client, one, _with_choices) for one in declared()]
        about = "The reaper's counterpart for runs on other machines"
        pools.put_silence_automation(client, _ZOMBIES, about, _SILENT_SECONDS)
    return names


def _with_choices(schema: dict[str, Any]) -> dict[str, Any]:
    from flows.deployment import forms, settings

    return settings.with_choices(schema, forms.WITH_PATHS)
