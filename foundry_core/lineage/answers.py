"""The rows of `foundry_core.lineage.queries` that code reads by name, as types: plain dicts, ready
for JSON. Times are ISO strings in UTC. All other rows have the columns of their views (views.sql).
"""

from typing import Any, NotRequired, TypedDict


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
    continued_from: NotRequired[str | None]
    continued_step: NotRequired[int | None]
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
    """action: run, reuse, blocked, failed, cancelled, gone, or shared (it ran for several
    variants); it chooses the colour."""

    name: str
    kind: str | None
    key: str | None
    action: str


class GraphEdge(TypedDict):
    """source and target: names of nodes."""

    source: str
    target: str
    label: str
