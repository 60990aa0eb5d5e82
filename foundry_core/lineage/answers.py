"""The rows that `foundry_core.lineage.queries` answers, as types. Plain dicts, ready for JSON.

Times are ISO strings in UTC, `Any` is a value of JSON. Columns are those of the views.
"""

from typing import Any, NotRequired, TypedDict, final


class ScoreRow(TypedDict):
    """Success of one task, 'all' for the total; low and high are null where no interval is known.
    n leaves crashed and pending episodes out."""

    task: str
    n: int
    successes: int
    crashed: int
    pending: int
    success_rate: float | None
    low: float | None
    high: float | None
    policy_key: str | None


class FileRow(TypedDict):
    path: str
    size: int
    sha256: str
    role: str


class RunRow(TypedDict):
    """View run_summary. scores: stage → {success_rate, n}."""

    run_id: str
    pipeline: str
    status: str
    started_at: str
    seconds: float | None
    overrides: list[list[Any]] | None
    stages: int
    ran: int
    reused: int
    blocked: int
    failed: int
    scores: dict[str, Any] | None
    ablation_id: str | None
    variant: str | None
    git_commit: str | None
    git_dirty: bool | None
    error: str | None


class StageRow(TypedDict):
    """View run_stage, of one run."""

    stage: str
    position: int | None
    kind: str | None
    key: str
    artifact_key: str | None
    planned: str | None
    action: str
    how: str | None
    reasons: list[dict[str, Any]] | None
    resolved_at: str | None


class AttemptRow(TypedDict):
    """View attempt, less the key and the run."""

    attempt: str
    kind: str
    stage: str
    state: str
    started_at: str
    finished_at: str | None
    seconds: float | None
    cpu_seconds: float | None
    gpu_seconds: float | None
    peak_memory: int | None
    resumed_from_step: int | None
    error: str | None
    host: str | None
    pid: int | None
    python: str | None
    git_commit: str | None
    git_dirty: bool | None
    diff_digest: str | None
    packages_digest: str | None
    hardware: Any
    environment: Any
    command: list[str] | None
    job_ref: str | None


class ArtifactAttempt(AttemptRow):
    """An attempt at one artifact."""

    run_id: str


class RunAttempt(AttemptRow):
    """An attempt of one run."""

    key: str


class InputRow(TypedDict):
    """Table artifact_input, of one artifact."""

    slot: str
    label: str
    role: str
    stage: str | None
    kind: str | None
    upstream_key: str
    content: str | None


class VersionRow(TypedDict):
    """View artifact_version, of one artifact."""

    attempt: str
    run_id: str
    content: str
    metrics: dict[str, Any] | None
    created_at: str
    files: int
    bytes: int
    latest: bool


class AliasRow(TypedDict):
    alias: str
    set_at: str


class UserRow(TypedDict):
    """An artifact that has this one as an input."""

    key: str
    kind: str
    present: bool


class RunUse(TypedDict):
    """A stage of a run that came out as this artifact."""

    run_id: str
    stage: str
    action: str


class ComputeRow(TypedDict):
    """View compute_spent_saved, of one run."""

    attempts: int
    reused: int
    spent_seconds: float
    saved_seconds: float
    spent_cpu_seconds: float
    saved_cpu_seconds: float
    spent_gpu_seconds: float
    saved_gpu_seconds: float


@final
class RunAnswer(TypedDict):
    """View pipeline_run, with the run's stages, attempts (view attempt) and compute."""

    run_id: str
    pipeline: str
    status: str
    started_at: str
    finished_at: str | None
    seconds: float | None
    overrides: list[list[Any]] | None
    argv: list[str] | None
    parent: str | None
    ablation_id: str | None
    variant: str | None
    baseline: str | None
    job_ref: str | None
    host: str | None
    git_commit: str | None
    git_dirty: bool | None
    diff_digest: str | None
    metrics: dict[str, Any] | None
    error: str | None
    stages: list[StageRow]
    attempts: list[RunAttempt]
    compute: ComputeRow


@final
class ArtifactAnswer(TypedDict):
    """View artifact (only key and present where it was never committed), with the rows of its
    inputs, files, scores, attempts, versions (where there are several), names, users and runs."""

    key: str
    present: bool
    kind: NotRequired[str]
    content: NotRequired[str]
    recipe: NotRequired[Any]
    seed: NotRequired[int]
    metrics: NotRequired[dict[str, Any]]
    bytes: NotRequired[int]
    inputs: list[InputRow]
    file_list: list[FileRow]
    scores: list[ScoreRow]
    attempts: list[ArtifactAttempt]
    versions: list[VersionRow]
    aliases: list[AliasRow]
    used_by: list[UserRow]
    runs: list[RunUse]


class TraceNode(TypedDict):
    """An artifact in a trace. One that was shown before has only key, kind, role and `repeated`."""

    key: str
    kind: str | None
    role: str
    repeated: NotRequired[bool]
    content: NotRequired[str | None]
    files: NotRequired[int | None]
    bytes: NotRequired[int | None]
    recipe: NotRequired[Any]
    seed: NotRequired[int | None]
    sources: NotRequired[dict[str, Any] | None]
    code: NotRequired[str | None]
    code_fingerprint: NotRequired[str | None]
    git_commit: NotRequired[str | None]
    git_dirty: NotRequired[bool | None]
    diff_digest: NotRequired[str | None]
    run_id: NotRequired[str | None]
    attempt: NotRequired[str | None]
    seconds: NotRequired[float | None]
    created_at: NotRequired[str | None]
    linked_to: NotRequired[str | None]
    present: NotRequired[bool | None]
    file_list: NotRequired[list[FileRow]]
    scores: NotRequired[list[ScoreRow]]
    inputs: NotRequired[list["TraceNode"]]


class Change(TypedDict):
    """A leaf that differs. place: a stage, or a role such as `policy/vlm`, '' for the artifact."""

    place: str
    path: str
    old: Any
    new: Any


class WhyRun(TypedDict):
    """What one run did with an artifact."""

    run_id: str
    started_at: str | None
    stage: str
    kind: str | None
    planned: str | None
    action: str
    how: str | None
    reasons: list[dict[str, Any]] | None
    artifact_key: str | None


class WhyAnswer(TypedDict):
    """runs: oldest first. previous: the artifact that the same stage had before; changes: from it
    to this one."""

    key: str
    runs: list[WhyRun]
    previous: str | None
    changes: list[Change]


class GraphNode(TypedDict):
    """action: run, reuse, blocked, failed or gone; it chooses the colour."""

    name: str
    kind: str | None
    key: str | None
    action: str


class GraphEdge(TypedDict):
    """source and target: names of nodes."""

    source: str
    target: str
    label: str
