"""Foundry's work pools, deployments and zombie automation on the configured Prefect server.

flows/prefect.yaml is their only description (deploy/prefect.yaml is a link to it). Applying is
idempotent: a server that has them is brought up to date.
"""

import sys
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


def apply(directory: Path, *, gpu_limit: int | None, parallel_runs: int | None = None) -> list[str]:
    """Creates or updates everything; the deployments' full names. directory: where relative paths
    in parameters start. gpu_limit: how many GPU stages run at once (None: no limit)."""
    with api() as client:
        pools.put_pool(
            client, PIPELINE_POOL, parallel_runs, "Coordinators: full pipelines and ablations"
        )
        pools.put_pool(
            client, GPU_POOL, gpu_limit, "Stages with GPUs; the limit is how many run at once"
        )
        names = [
            pools.put_deployment(
                client,
                entry["entrypoint"],
                entry["name"],
                description=entry["description"],
                tags=entry["tags"],
                pool=entry["work_pool"]["name"],
                job_variables=_local(entry["work_pool"]["job_variables"], directory),
            )
            for entry in declared()
        ]
        pools.put_silence_automation(
            client,
            _ZOMBIES,
            "The reaper's counterpart for runs on other machines",
            _SILENT_SECONDS,
        )
    return names


def _local(job: Mapping[str, Any], directory: Path) -> dict[str, Any]:
    """This interpreter, not the first `python` on a PATH; and not Prefect's temporary folder."""
    words = job["command"].split()
    words[0] = sys.executable if words[0] == "python" else words[0]
    return {**job, "command": " ".join(words), "working_dir": str(directory)}
