"""What the lineage is to know of a run: its events, made from its plan."""

import os
import socket
import sys
from collections.abc import Mapping

from flows.runs.planning import Prepared
from foundry_core.lineage.event_types import PlannedInput, PlannedStage, RunStarted, StageResolved
from foundry_core.lineage.provenance import collect_provenance
from foundry_core.pipeline.plan import StagePlan


def run_started(
    prepared: Prepared,
    run_id: str,
    *,
    job_ref: str | None,
    parent: str | None,
    ablation: Mapping[str, str] | None,
) -> RunStarted:
    """The event that a run begins, with its plan."""
    return RunStarted(
        run_id=run_id,
        pipeline=prepared.pipeline.name,
        overrides=[list(pair) for pair in prepared.request.overrides],
        argv=sys.argv,
        host=socket.gethostname(),
        pid=os.getpid(),
        git=collect_provenance(sys.argv).get("git"),
        stages=[_planned(prepared, row) for row in prepared.plan.stages.values()],
        parent=parent,
        ablation=ablation,
        job_ref=job_ref,
    )


def _planned(prepared: Prepared, row: StagePlan) -> PlannedStage:
    spec = prepared.specs[row.name]
    node = prepared.pipeline.stages[row.name]
    return PlannedStage(
        name=row.name,
        kind=row.kind,
        key=row.key,
        action=row.action,
        reasons=row.to_json()["reasons"],
        recipe=spec.recipe_json,
        resources=node.resources.model_dump(mode="json"),
        seed=spec.seed,
        code=spec.code,
        code_fingerprint=spec.code_fingerprint,
        sources=spec.sources,
        inputs=[
            PlannedInput(slot=slot, label=label, stage=up, key=spec.inputs[slot][label])
            for slot, label, up in node.upstream()
        ],
    )


def stage_resolved(
    run_id: str, row: StagePlan, artifact: str, action: str, how: str
) -> StageResolved:
    """The event that says which artifact is a stage's in this run."""
    return StageResolved(
        run_id=run_id,
        stage=row.name,
        key=row.key,
        artifact_key=artifact,
        action=action,
        how=how or None,
        reasons=row.to_json()["reasons"],
    )
