-- `fact`: what events say, one table per event type, per entity the latest event (projection.py).
-- The tables without a schema, and the views over both, are what people query. Rows are a function
-- of the SET of events, so order of arrival cannot matter. Times are UTC.
create schema fact;

create table meta (schema_version integer, log varchar);
create table event (id uuid, time timestamp, type varchar, run_id varchar);
create table segment (name varchar);

create table fact.run_started (
    event_id uuid, event_time timestamp, run_id varchar, pipeline varchar, overrides json, argv json,
    parent varchar, ablation_id varchar, variant varchar, baseline varchar,
    job_ref varchar, host varchar, git_commit varchar, git_dirty boolean,
    diff_digest varchar);
create table fact.run_finished (
    event_id uuid, event_time timestamp, run_id varchar, status varchar, seconds double,
    metrics json, error varchar);
create table fact.stage_resolved (
    event_id uuid, event_time timestamp, run_id varchar, stage varchar, key varchar,
    artifact_key varchar, action varchar, how varchar, reasons json);
create table fact.attempt_started (
    event_id uuid, event_time timestamp, key varchar, attempt varchar, run_id varchar, kind varchar,
    stage varchar, host varchar, pid bigint, python varchar, git_commit varchar, git_dirty boolean,
    diff_digest varchar, packages_digest varchar, hardware json, environment json, command json,
    job_ref varchar);
create table fact.attempt_finished (
    event_id uuid, event_time timestamp, key varchar, attempt varchar, run_id varchar,
    state varchar, error varchar, seconds double, cpu_seconds double, gpu_seconds double,
    peak_memory bigint, resumed_from_step bigint);
-- Ends of attempts as a later worker found them, which does not know whose they were.
create table fact.attempt_closed (
    event_id uuid, event_time timestamp, key varchar, attempt varchar, state varchar, error varchar);
create table fact.committed (
    event_id uuid, event_time timestamp, key varchar, kind varchar, content varchar,
    input_content_key varchar, recipe json, seed bigint, code varchar, code_fingerprint varchar,
    sources json,
    metrics json, attempt varchar, run_id varchar, seconds double, created_at timestamp,
    linked_to varchar, git_commit varchar, git_dirty boolean, diff_digest varchar,
    files integer, bytes bigint);
-- Every commit of an artifact; `committed` and what hangs on it are of the latest.
create table fact.version (
    event_id uuid, event_time timestamp, key varchar, attempt varchar, run_id varchar,
    content varchar, metrics json, created_at timestamp, files integer, bytes bigint);
create table fact.removed (
    event_id uuid, event_time timestamp, key varchar, kind varchar, reason varchar);
create table fact.alias (event_id uuid, event_time timestamp, alias varchar, key varchar);
create table fact.ablation_started (
    event_id uuid, event_time timestamp, ablation_id varchar, base_pipeline varchar, vary json,
    seeds json);
create table fact.ablation_finished (
    event_id uuid, event_time timestamp, ablation_id varchar, status varchar,
    comparison_key varchar);

create table stage_spec (
    run_id varchar, parent varchar, stage varchar, position integer, kind varchar, key varchar,
    action varchar, reasons json, recipe json, resources json, seed bigint, code varchar,
    code_fingerprint varchar, sources json);
create table stage_input (
    run_id varchar, stage varchar, key varchar, slot varchar, label varchar,
    upstream_stage varchar, upstream_key varchar);
-- Edges as used, from artifact.json; `role` is the slot, with the label where it takes several.
create table artifact_input (
    key varchar, slot varchar, label varchar, role varchar, stage varchar, kind varchar,
    upstream_key varchar, content varchar);
create table file (key varchar, path varchar, size bigint, sha256 varchar, role varchar);
-- step is null for the final metrics that the stage returned.
create table metric (key varchar, step bigint, name varchar, value double);
create table episode (
    key varchar, task varchar, scenario varchar, success boolean, steps bigint, crash varchar,
    seed ubigint);
-- Of every commit, as its evaluation wrote them; task '' is the total. [low, high] is null where
-- there were none written, and the counts are of episodes.
create table score (
    key varchar, attempt varchar, run_id varchar, task varchar, n bigint, successes bigint,
    crashed bigint, pending bigint, rate double, low double, high double);
create table package (digest varchar, name varchar, version varchar);
create table fact.variant (ablation_id varchar, variant varchar, position integer, overrides json);
create table fact.effect (
    ablation_id varchar, variant varchar, path varchar, old json, new json, success double,
    n bigint, low double, high double, p_value double, decision varchar, letters varchar);
