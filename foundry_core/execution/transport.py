"""A StageJob as JSON, for a worker in another process or on another machine.

Inputs travel as (kind, key): the worker reads them from the store, which both sides share. So a job
stays a few kilobytes, whatever its inputs weigh, and fits into a request's parameters.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foundry_core.errors import FoundryError
from foundry_core.execution.control import recipe_class
from foundry_core.execution.job import Outcome, StageFailed, StageJob
from foundry_core.pipeline.registry import stage_kind
from foundry_core.pipeline.spec import StageSpec, check_fields
from foundry_core.store.base import Store
from foundry_core.store.catalog import known_functions
from foundry_core.store.manifest import Artifact

_FIELDS = {"spec", "resources", "inputs", "run_id", "log", "force", "job_ref"}


def job_to_json(job: StageJob) -> dict[str, Any]:
    """Without the spec's per-function digests, which the store has: they would be most of it."""
    return {
        "spec": job.spec.to_json() | {"functions": {}},
        "resources": job.resources.model_dump(mode="json"),
        "inputs": {
            slot: {label: [artifact.kind, artifact.key] for label, artifact in named.items()}
            for slot, named in job.inputs.items()
        },
        "run_id": job.run_id,
        "log": str(job.log),
        "force": job.force,
        "job_ref": job.job_ref,
    }


def job_from_json(data: Mapping[str, Any], store: Store) -> StageJob:
    """Raises FoundryError for an unknown or missing field and for inputs the store lacks."""
    check_fields("a stage job", data, _FIELDS)
    spec = data["spec"]
    functions = known_functions(store, spec["code_fingerprint"])
    recipe = recipe_class(spec["kind"], spec["code"])
    parsed = StageSpec.from_json(spec | {"functions": functions}, recipe)
    return StageJob(
        spec=parsed,
        resources=stage_kind(parsed.kind).Resources.model_validate(data["resources"]),
        inputs={
            slot: {label: _artifact(store, parsed.name, *place) for label, place in named.items()}
            for slot, named in data["inputs"].items()
        },
        run_id=data["run_id"],
        log=Path(data["log"]),
        force=data["force"],
        job_ref=data["job_ref"],
    )


def _artifact(store: Store, stage: str, kind: str, key: str) -> Artifact:
    artifact = store.read(kind, key)
    if artifact is None:
        raise FoundryError(
            f"stage {stage!r}: its input {kind}/{key[:12]} is not in the store {store.uri}",
            "coordinator and workers must share one store: set FOUNDRY_STORE alike for both",
        )
    return artifact


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
    built = artifact.run_id == job.run_id and not artifact.linked_to
    return Outcome(
        artifact=artifact,
        action="run" if built else "reuse",
        how="" if built else ("content" if artifact.linked_to else "recipe"),
        seconds=artifact.seconds,
        attempt=artifact.attempt if built else None,
    )
