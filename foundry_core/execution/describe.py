"""The manifests of artifacts that this program makes: built by a job, or linked to an equal one."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foundry_core.execution.job import StageJob
from foundry_core.store.manifest import Artifact, ArtifactInput, content_digest, scan


def describe(
    job: StageJob,
    out: Path,
    *,
    attempt: str,
    metrics: Mapping[str, Any],
    provenance: Mapping[str, Any],
    created: str,
    seconds: float,
) -> Artifact:
    """The artifact whose files lie in `out`; every byte is read."""
    spec, files = job.spec, scan(out)
    return Artifact(
        kind=spec.kind,
        key=spec.key,
        content=content_digest(files),
        input_content_key=job.input_content_key,
        code=spec.code,
        code_fingerprint=spec.code_fingerprint,
        recipe=spec.recipe_json,
        seed=spec.seed,
        sources=spec.sources,
        inputs=_inputs(job),
        files=files,
        metrics=metrics,
        attempt=attempt,
        run_id=job.run_id,
        created=created,
        seconds=seconds,
        provenance=provenance,
    )


def linked(job: StageJob, equal: Artifact, created: str) -> Artifact:
    """The job's artifact, sharing the files of one that was computed from the same bytes."""
    spec = job.spec
    return dataclasses.replace(
        equal,
        key=spec.key,
        input_content_key=job.input_content_key,
        code=spec.code,
        code_fingerprint=spec.code_fingerprint,
        recipe=spec.recipe_json,
        seed=spec.seed,
        sources=spec.sources,
        inputs=_inputs(job),
        linked_to=equal.linked_to or equal.key,
        run_id=job.run_id,
        created=created,
        attempt="",
    )


def _inputs(job: StageJob) -> tuple[ArtifactInput, ...]:
    return tuple(
        ArtifactInput(
            slot=slot,
            label=label,
            stage=job.spec.upstream[slot][label],
            kind=artifact.kind,
            key=artifact.key,
            content=artifact.content,
        )
        for slot, named in job.inputs.items()
        for label, artifact in named.items()
    )
