"""A StageJob as JSON, for a worker in another process or on another machine.

Inputs travel as (kind, key): the worker reads them from the store, which both sides share. So a job
stays a few kilobytes, whatever its inputs weigh, and fits into a request's parameters.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foundry_core.errors import FoundryError
from foundry_core.execution.job import Outcome, StageFailed, StageJob
from foundry_core.pipeline.spec import StageSpec
from foundry_core.store.local import Store

_FIELDS = {"spec", "recipe", "resources", "inputs", "run_id", "log", "force", "origin"}


def job_to_json(job: StageJob) -> dict[str, Any]:
    """Without the spec's per-function digests: they explain plans and are recorded with the run."""
    spec = {field.name: getattr(job.spec, field.name) for field in dataclasses.fields(job.spec)}
    return {
        "spec": spec | {"functions": {}},
        "recipe": dict(job.recipe),
        "resources": dict(job.resources),
        "inputs": {
            slot: {label: [artifact.kind, artifact.key] for label, artifact in named.items()}
            for slot, named in job.inputs.items()
        },
        "run_id": job.run_id,
        "log": str(job.log),
        "force": job.force,
        "origin": dict(job.origin),
    }


def job_from_json(data: Mapping[str, Any], store: Store) -> StageJob:
    """Raises FoundryError for an unknown or missing field and for inputs the store lacks."""
    strange = data.keys() ^ _FIELDS
    if strange:
        raise FoundryError(
            f"a stage job has exactly the fields {', '.join(sorted(_FIELDS))}; "
            f"wrong here: {', '.join(sorted(strange))}",
            "jobs are written by the coordinator: run the same version of foundry on both sides",
        )
    name = data["spec"]["name"]
    inputs = {
        slot: {label: _artifact(store, name, *place) for label, place in named.items()}
        for slot, named in data["inputs"].items()
    }
    return StageJob(
        **{field: data[field] for field in ("recipe", "resources", "run_id", "force", "origin")},
        spec=StageSpec(**data["spec"]),
        inputs=inputs,
        log=Path(data["log"]),
    )


def _artifact(store: Store, stage: str, kind: str, key: str) -> Any:
    artifact = store.read(kind, key)
    if artifact is None:
        raise FoundryError(
            f"stage {stage!r}: its input {kind}/{key[:12]} is not in the store {store.uri}",
            "coordinator and workers must share one store: set FOUNDRY_STORE alike for both",
        )
    return artifact


def with_origin(job: StageJob, **ids: str) -> StageJob:
    """The job, executed in the name of these ids (they enter the lineage's attempt)."""
    return dataclasses.replace(job, origin={**job.origin, **ids})


def outcome_of(job: StageJob, store: Store) -> Outcome:
    """What a job that ended well elsewhere came to, read from the store both sides share."""
    artifact = store.read(job.spec.kind, job.spec.key)
    if artifact is None:
        raise StageFailed(
            job.spec.name,
            f"its worker reports success, but {store.uri} has no {job.spec.key[:12]}",
            "coordinator and workers must share one store: set FOUNDRY_STORE alike for both",
            job.log,
        )
    ours = artifact.run_id == job.run_id and not artifact.linked_to
    return Outcome(
        artifact=artifact,
        action="run" if ours else "reuse",
        how="" if ours else ("content" if artifact.linked_to else "recipe"),
        seconds=artifact.seconds,
        attempt=artifact.attempt if ours else None,
    )
