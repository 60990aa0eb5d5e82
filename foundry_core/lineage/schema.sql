-- `base`: what events say, folded (per entity the latest event stands). `tail` folds the last few
-- events on the fly; `fact` and `main` show both, and are what people query. Rows are a function of
-- the SET of events, so order of arrival cannot matter.
-- Times are UTC.
create schema base;
create schema tail;
create schema fact;

create table meta (schema_version integer, log varchar, tail varchar);
create table base.event (id uuid, time timestamp, type varchar, run_id varchar);
create table segment (name varchar);

create table base.run_started (
    event_id uuid, event_time timestamp, run_id varchar, pipeline varchar, overrides json, argv json,
    parent varchar, ablation_id varchar, variant varchar, baseline varchar,
    prefect_flow_run_id varchar, host varchar, git_commit varchar, git_dirty boolean,
    diff_digest varchar);
create table base.run_finished (
    event_id uuid, event_time timestamp, run_id varchar, status varchar, seconds double,
    metrics json, error varchar);
create table base.stage_resolved (
    event_id uuid, event_time timestamp, run_id varchar, stage varchar, key varchar,
    artifact_key varchar, action varchar, how varchar, reasons json);
create table base.attempt_started (
    event_id uuid, event_time timestamp, key varchar, attempt varchar, run_id varchar, kind varchar,
    stage varchar, host varchar, pid bigint, python varchar, git_commit varchar, git_dirty boolean,
    diff_digest varchar, packages_digest varchar, hardware json, environment json, command json,
    prefect_flow_run_id varchar, prefect_task_run_id varchar, ray_job_id varchar);
create table base.attempt_finished (
    event_id uuid, event_time timestamp, key varchar, attempt varchar, run_id varchar,
    state varchar, error varchar, seconds double, cpu_seconds double, gpu_seconds double,
    peak_memory bigint, resumed_from_step bigint);
-- Told by a later worker that does not know whose attempt it was.
create table base.attempt_closed (
    event_id uuid, event_time timestamp, key varchar, attempt varchar, state varchar, error varchar);
create table base.committed (
    event_id uuid, event_time timestamp, key varchar, kind varchar, content varchar,
    input_content_key varchar, recipe json, seed bigint, code varchar, code_fingerprint varchar, sources json,
    metrics json, attempt varchar, run_id varchar, seconds double, created_at timestamp,
    linked_to varchar, git_commit varchar, git_dirty boolean, diff_digest varchar,
    files integer, bytes bigint);
-- Every commit of an artifact; `committed` and what hangs on it are of the latest.
create table base.version (
    event_id uuid, event_time timestamp, key varchar, attempt varchar, run_id varchar,
    content varchar, metrics json, created_at timestamp, files integer, bytes bigint);
create table base.removed (
    event_id uuid, event_time timestamp, key varchar, kind varchar, reason varchar);
create table base.alias (event_id uuid, event_time timestamp, alias varchar, key varchar);
create table base.ablation_started (
    event_id uuid, event_time timestamp, ablation_id varchar, base_pipeline varchar, vary json,
    seeds json);
create table base.ablation_finished (
    event_id uuid, event_time timestamp, ablation_id varchar, status varchar,
    comparison_key varchar);

create table base.stage_spec (
    run_id varchar, parent varchar, stage varchar, position integer, kind varchar, key varchar,
    action varchar, reasons json, recipe json, resources json, seed bigint, code varchar,
    code_fingerprint varchar, sources json);
create table base.stage_input (
    run_id varchar, stage varchar, key varchar, slot varchar, label varchar,
    upstream_stage varchar, upstream_key varchar);
-- Edges as used, from artifact.json; `role` is the slot, with the label where it takes several.
create table base.artifact_input (
    key varchar, slot varchar, label varchar, role varchar, stage varchar, kind varchar,
    upstream_key varchar, content varchar);
create table base.file (key varchar, path varchar, size bigint, sha256 varchar, role varchar);
-- step is null for the final metrics that the stage returned.
create table base.metric (key varchar, step bigint, name varchar, value double);
create table base.episode (
    key varchar, task varchar, scenario varchar, success boolean, steps bigint, crash varchar,
    seed ubigint);
create table base.version_score (
    key varchar, attempt varchar, run_id varchar, task varchar, n bigint, successes bigint,
    crashed bigint);
create table base.package (digest varchar, name varchar, version varchar);
create table base.variant (ablation_id varchar, variant varchar, position integer, overrides json);
create table base.effect (
    ablation_id varchar, variant varchar, path varchar, old json, new json, success double,
    n bigint, low double, high double, p_value double, decision varchar, letters varchar);
