"""What can happen, as types: one frozen class per event, whose fields are what the event says.

A field that is None is left out of the file. Fields may be added (older events then lack them);
none is renamed or given another meaning. Importing this costs milliseconds: no duckdb, no pydantic.

`job_ref` says where something ran that this process only waits for: `prefect:flow-run/<id>`,
`prefect:task-run/<id>`, `ray:<submission id>`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, ClassVar

from foundry_core.masking import mask_command, mask_settings, mask_text

Json = Mapping[str, Any]
# Fields that hold what people typed, or what a program said about it. Recipes are left as they are:
# they are what a key stands for.
_MASKS: Mapping[str, Callable[[Any], Any]] = {
    "argv": mask_command,
    "error": mask_text,
    **dict.fromkeys(("overrides", "variants", "vary"), mask_settings),
}


@dataclass(frozen=True, kw_only=True)
class Event:
    """Base of all events. run_id: the run that it belongs to, if any."""

    type: ClassVar[str]
    run_id: str | None = None

    def data(self) -> dict[str, Any]:
        """The fields that are set, as JSON, without the secrets that somebody typed."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        data = {name: _plain(value) for name, value in values if value is not None}
        typed = {name: mask(data[name]) for name, mask in _MASKS.items() if name in data}
        return data | typed


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


@dataclass(frozen=True, kw_only=True)
class PlannedInput:
    """stage and key: of the upstream."""

    slot: str
    label: str
    stage: str
    key: str


@dataclass(frozen=True, kw_only=True)
class PlannedStage:
    """A stage as a run found it; action and reasons as in its plan."""

    name: str
    kind: str
    key: str
    action: str
    reasons: Sequence[Json]
    recipe: Json
    resources: Json
    seed: int
    code: str
    code_fingerprint: str
    sources: Mapping[str, str]
    inputs: Sequence[PlannedInput]


@dataclass(frozen=True, kw_only=True)
class RunStarted(Event):
    """asked: the pipeline as it was asked for, a name or a file. overrides: (path, value) pairs.
    git: {commit, dirty, diff_digest} and `diff`, the text, which the log moves into a blob.
    parent: the run that this one is part of. ablation: {id, variant}."""

    type = "run_started"
    run_id: str
    pipeline: str
    stages: Sequence[PlannedStage]
    overrides: Sequence[Sequence[Any]] = ()
    argv: Sequence[str] = ()
    host: str | None = None
    pid: int | None = None
    git: Json | None = None
    parent: str | None = None
    ablation: Mapping[str, str] | None = None
    baseline: str | None = None
    job_ref: str | None = None
    asked: str | None = None


@dataclass(frozen=True, kw_only=True)
class StageResolved(Event):
    """artifact_key: the stage's artifact in this run; another key than its own where equal bytes
    were found under one."""

    type = "stage_resolved"
    run_id: str
    stage: str
    key: str
    action: str
    artifact_key: str | None = None
    how: str | None = None
    reasons: Sequence[Json] = ()


@dataclass(frozen=True, kw_only=True)
class RunFinished(Event):
    """status: succeeded, failed, cancelled or lost. metrics: <stage>.<name> → value."""

    type = "run_finished"
    run_id: str
    status: str
    seconds: float | None = None
    metrics: Json | None = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class AttemptStarted(Event):
    """provenance: see `foundry_core.lineage.provenance.collect_provenance`."""

    type = "attempt_started"
    run_id: str
    key: str
    kind: str
    stage: str
    attempt: str
    host: str | None = None
    pid: int | None = None
    provenance: Json | None = None
    job_ref: str | None = None


@dataclass(frozen=True, kw_only=True)
class AttemptFinished(Event):
    """state: committed, failed, interrupted, discarded or lost. Without a run_id it closes the
    latest attempt of that key and name. undeclared_reads: files that its key does not know."""

    type = "attempt_finished"
    key: str
    attempt: str
    state: str
    kind: str | None = None
    stage: str | None = None
    error: str | None = None
    seconds: float | None = None
    cpu_seconds: float | None = None
    gpu_seconds: float | None = None
    peak_memory: int | None = None
    resumed_from_step: int | None = None
    undeclared_reads: Sequence[str] | None = None


@dataclass(frozen=True, kw_only=True)
class ArtifactCommitted(Event):
    """artifact: the content of artifact.json. The rows are those of its records
    (`foundry_core.lineage.records`): metrics {step, name, value}, episodes {task, scenario,
    success, steps, seconds, crash, seed}, scores {task, n, successes, crashed, pending, rate, low,
    high}, measures of a model {task, name, value, n, low, high}."""

    type = "artifact_committed"
    artifact: Json
    metric_rows: Sequence[Json] = ()
    episode_rows: Sequence[Json] = ()
    score_rows: Sequence[Json] = ()
    measure_rows: Sequence[Json] = ()


@dataclass(frozen=True, kw_only=True)
class ArtifactRemoved(Event):
    """reason: gc, missing (found gone), or words for a person."""

    type = "artifact_removed"
    kind: str
    key: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class AliasSet(Event):
    """key: None takes the alias away."""

    type = "alias_set"
    alias: str
    key: str | None


@dataclass(frozen=True, kw_only=True)
class AblationStarted(Event):
    """ablation_id: of its run, too. variants: {variant, overrides} each, the base first. vary:
    path → values. seeds: how many per variant. design: by which variants may stop early, with
    `rounds`, its budget. search: {id, rung, budget} of the search that it is a rung of; rung null:
    what is judged at its end. question: what it answers, in words; a study's."""

    type = "ablation_started"
    ablation_id: str
    base_pipeline: str
    variants: Sequence[Json]
    vary: Any = None
    seeds: Any = None
    design: Json | None = None
    search: Json | None = None
    question: str | None = None


@dataclass(frozen=True, kw_only=True)
class AblationFinished(Event):
    """effects: {variant, path, old, new, success, n, low, high, p_value, decision, letters} per
    changed path of a variant."""

    type = "ablation_finished"
    ablation_id: str
    status: str
    comparison_key: str | None = None
    effects: Sequence[Json] = ()
