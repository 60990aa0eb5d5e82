"""Which event becomes which rows.

Each event type feeds one fact table. Per entity (its key columns) the event with the greatest
(time, id) decides, and its child rows come with it; an earlier one leaves nothing. That is
commutative, associative and idempotent, hence a rebuild equals any incremental history.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Projection:
    """How one event type becomes rows.

    structure: the JSON read from the event's data, as DuckDB types, available as `d`.
    columns: those of the table (event_id and event_time come before) → expression.
    children: table → query over `latest` (the key columns, event_id and d) for its rows.
    shares: the projection of the same events whose d has all of this structure: reading JSON is
        most of a rebuild, and needs to be done once.
    """

    event: str
    table: str
    key: tuple[str, ...]
    structure: Mapping[str, Any]
    columns: Mapping[str, str]
    children: Mapping[str, str] = field(default_factory=dict)
    where: str = "true"
    shares: "Projection | None" = None

    @property
    def has_key(self) -> bool:
        """Whether two events can be about one entity."""
        return self.key != ("event_id",)


def _types(fields: str) -> dict[str, str]:
    """The DuckDB types of "name name:type ..."; a field without one is a text."""
    pairs = (field.partition(":") for field in fields.split())
    return {name: kind or "varchar" for name, _, kind in pairs}


def _same(names: str, record: str = "d") -> dict[str, str]:
    return {name: f"{record}.{name}" for name in names.split()}


_GIT = _types("commit dirty:boolean diff_digest")


def _git(record: str) -> dict[str, str]:
    return {
        "git_commit": f"{record}.git.commit",
        "git_dirty": f"{record}.git.dirty",
        "diff_digest": f"{record}.git.diff_digest",
    }


_RUN_STARTED = Projection(
    event="run_started",
    table="fact.run_started",
    key=("run_id",),
    structure={
        **_types("run_id pipeline asked parent baseline host job_ref overrides:json argv:json"),
        "ablation": _types("id variant"),
        "git": _GIT,
        "stages": [
            {
                **_types("name kind key action reasons:json recipe:json resources:json"),
                **_types("seed:bigint code code_fingerprint sources:json"),
                "inputs": [_types("slot label stage key")],
            }
        ],
    },
    columns={
        **_same("run_id pipeline asked overrides argv parent"),
        "ablation_id": "d.ablation.id",
        "variant": "d.ablation.variant",
        **_same("baseline job_ref host"),
        **_git("d"),
    },
    children={
        "stage_spec": """
            select run_id, parent, s.name, position, s.kind, s.key, s.action, s.reasons, s.recipe,
                s.resources, s.seed, s.code, s.code_fingerprint, s.sources
            from (select run_id, d.parent as parent, unnest(d.stages) as s,
                generate_subscripts(d.stages, 1) - 1 as position from latest)""",
        "stage_input": """
            select run_id, s.name, s.key, i.slot, i.label, i.stage, i.key
            from (select run_id, s, unnest(s.inputs) as i
                from (select run_id, unnest(d.stages) as s from latest))""",
    },
)

_RUN_FINISHED = Projection(
    event="run_finished",
    table="fact.run_finished",
    key=("run_id",),
    structure=_types("run_id status seconds:double metrics:json error"),
    columns={**_same("run_id status seconds metrics"), "error": "nullif(d.error, '')"},
)

_STAGE_RESOLVED = Projection(
    event="stage_resolved",
    table="fact.stage_resolved",
    key=("run_id", "stage"),
    structure=_types("run_id stage key artifact_key action how reasons:json"),
    columns=_same("run_id stage key artifact_key action how reasons"),
)

_ATTEMPT_STARTED = Projection(
    event="attempt_started",
    table="fact.attempt_started",
    key=("key", "attempt", "run_id"),
    structure={
        **_types("key attempt run_id kind stage host pid:bigint job_ref"),
        "provenance": {
            **_types("host python packages_digest hardware:json environment:json command:json"),
            "git": _GIT,
        },
    },
    columns={
        **_same("key attempt run_id kind stage"),
        "host": "coalesce(nullif(d.host, ''), d.provenance.host)",
        "pid": "d.pid",
        "python": "d.provenance.python",
        **_git("d.provenance"),
        **_same("packages_digest hardware environment command", "d.provenance"),
        "job_ref": "d.job_ref",
    },
)

_FINISHED = _types(
    "key attempt run_id state error seconds:double cpu_seconds:double gpu_seconds:double"
    " peak_memory:bigint resumed_from_step:bigint"
)

_ATTEMPT_FINISHED = Projection(
    event="attempt_finished",
    table="fact.attempt_finished",
    key=("key", "attempt", "run_id"),
    structure=_FINISHED,
    columns={
        **_same("key attempt run_id state"),
        "error": "nullif(d.error, '')",
        **_same("seconds cpu_seconds gpu_seconds peak_memory resumed_from_step"),
    },
    where="d.run_id is not null",
)

# Ends of attempts as a later worker found them, which does not know whose they were.
_ATTEMPT_CLOSED = Projection(
    event="attempt_finished",
    table="fact.attempt_closed",
    key=("event_id",),
    structure=_FINISHED,
    columns=_same("key attempt state error"),
    where="d.run_id is null",
)

_SIZE = {
    "files": "coalesce(len(d.artifact.files), 0)",
    "bytes": "coalesce(list_sum([f.size for f in d.artifact.files]), 0)::bigint",
}
_METRICS = "map(varchar, json)"
_SCORE = {
    **_types("task n:bigint successes:bigint crashed:bigint pending:bigint"),
    **_types("rate:double low:double high:double"),
}
_MEASURE = _types("task name n:bigint value:double low:double high:double")

_COMMITTED = Projection(
    event="artifact_committed",
    table="fact.committed",
    key=("key",),
    structure={
        "artifact": {
            **_types("key kind content input_content_key code code_fingerprint attempt run_id"),
            **_types("linked_to recipe:json sources:json seed:bigint seconds:double"),
            **_types("created:timestamp"),
            "metrics": _METRICS,
            "inputs": [_types("slot label stage kind key content")],
            "files": [_types("path size:bigint sha256 role")],
            "provenance": {"git": _GIT, "continued": _types("key trunk step:bigint")},
        },
        "metric_rows": [_types("step:bigint name value:double")],
        "episode_rows": [
            _types("task scenario crash success:boolean steps:bigint seconds:double seed:ubigint")
        ],
        "score_rows": [_SCORE],
        "measure_rows": [_MEASURE],
    },
    columns={
        **_same("key kind content input_content_key recipe seed code", "d.artifact"),
        **_same("code_fingerprint sources", "d.artifact"),
        "metrics": "to_json(d.artifact.metrics)",
        **_same("attempt run_id seconds", "d.artifact"),
        "created_at": "d.artifact.created",
        "linked_to": "d.artifact.linked_to",
        "continued_from": "d.artifact.provenance.continued.key",
        "continued_trunk": "d.artifact.provenance.continued.trunk",
        "continued_step": "d.artifact.provenance.continued.step",
        **_git("d.artifact.provenance"),
        **_SIZE,
    },
    children={
        "artifact_input": """
            select key, i.slot, i.label,
                case when len(list_filter(slots, lambda slot: slot = i.slot)) > 1
                    then i.slot || '.' || i.label else i.slot end,
                i.stage, i.kind, i.key, i.content
            from (select key, unnest(d.artifact.inputs) as i,
                list_transform(d.artifact.inputs, lambda one: one.slot) as slots from latest)""",
        "file": """
            select key, f.path, f.size, f.sha256, f.role
            from (select key, unnest(d.artifact.files) as f from latest)""",
        "metric": """
            select key, m.step, m.name, m.value
            from (select key, unnest(d.metric_rows) as m from latest)
            union all
            select key, null, m.key, value
            from (select key, m, try_cast(m.value ->> '$' as double) as value
                from (select key, unnest(map_entries(d.artifact.metrics)) as m from latest))
            where value is not null""",
        "episode": """
            select key, e.task, e.scenario, e.success, e.steps, e.seconds,
                case e.crash when 'false' then null when 'true' then 'unknown' else e.crash end,
                e.seed
            from (select key, unnest(d.episode_rows) as e from latest)""",
    },
)

# A key can be built again, by force or after damage. What runs did with the one before stays true.
# Scores are those that the evaluation wrote; for a kind that only records episodes, counts of them.
_VERSION = Projection(
    event="artifact_committed",
    table="fact.version",
    key=("key", "attempt", "run_id"),
    shares=_COMMITTED,
    structure={
        "artifact": {
            **_types("key attempt run_id content created:timestamp"),
            "metrics": _METRICS,
            "files": [_types("size:bigint")],
        },
        "episode_rows": [_types("task success:boolean")],
        "score_rows": [_SCORE],
        "measure_rows": [_MEASURE],
    },
    columns={
        "key": "d.artifact.key",
        "attempt": "coalesce(d.artifact.attempt, '')",
        "run_id": "coalesce(d.artifact.run_id, '')",
        "content": "d.artifact.content",
        "metrics": "to_json(d.artifact.metrics)",
        "created_at": "coalesce(d.artifact.created, event_time)",
        **_SIZE,
    },
    children={
        "score": """
            select key, attempt, run_id, s.task, s.n, s.successes, s.crashed, s.pending, s.rate,
                s.low, s.high
            from (select key, attempt, run_id, unnest(d.score_rows) as s from latest)
            union all
            select key, attempt, run_id, if(grouping(e.task) = 1, '', e.task), count(e.success),
                count(*) filter (e.success), count(*) - count(e.success), 0,
                count(*) filter (e.success) / nullif(count(e.success), 0), null, null
            from (select key, attempt, run_id, unnest(d.episode_rows) as e from latest
                where len(coalesce(d.score_rows, [])) = 0)
            group by grouping sets ((key, attempt, run_id, e.task), (key, attempt, run_id))
            having grouping(e.task) = 1 or e.task is not null""",
        "measure": """
            select key, attempt, run_id, m.task, m.name, m.value, m.n, m.low, m.high
            from (select key, attempt, run_id, unnest(d.measure_rows) as m from latest)""",
    },
)

_REMOVED = Projection(
    event="artifact_removed",
    table="fact.removed",
    key=("key",),
    structure=_types("key kind reason"),
    columns=_same("key kind reason"),
)

_ALIAS = Projection(
    event="alias_set",
    table="fact.alias",
    key=("alias",),
    structure=_types("alias key"),
    columns=_same("alias key"),
)

_ABLATION_STARTED = Projection(
    event="ablation_started",
    table="fact.ablation_started",
    key=("ablation_id",),
    structure={
        **_types("ablation_id base_pipeline vary:json seeds:json design:json search:json question"),
        "variants": [_types("variant overrides:json")],
    },
    columns=_same("ablation_id base_pipeline vary seeds design search question"),
    children={
        "fact.variant": """
            select ablation_id, v.variant, position, v.overrides
            from (select ablation_id, unnest(d.variants) as v,
                generate_subscripts(d.variants, 1) - 1 as position from latest)""",
    },
)

_ABLATION_FINISHED = Projection(
    event="ablation_finished",
    table="fact.ablation_finished",
    key=("ablation_id",),
    structure={
        **_types("ablation_id status comparison_key"),
        "effects": [
            {
                **_types("variant path decision letters old:json new:json n:bigint"),
                **_types("success:double low:double high:double p_value:double"),
            }
        ],
    },
    columns=_same("ablation_id status comparison_key"),
    children={
        "fact.effect": """
            select ablation_id, e.variant, e.path, e.old, e.new, e.success, e.n, e.low, e.high,
                e.p_value, e.decision, e.letters
            from (select ablation_id, unnest(d.effects) as e from latest)""",
    },
)

PROJECTIONS = (
    _RUN_STARTED,
    _RUN_FINISHED,
    _STAGE_RESOLVED,
    _ATTEMPT_STARTED,
    _ATTEMPT_FINISHED,
    _ATTEMPT_CLOSED,
    _COMMITTED,
    _VERSION,
    _REMOVED,
    _ALIAS,
    _ABLATION_STARTED,
    _ABLATION_FINISHED,
)
