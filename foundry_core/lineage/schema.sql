-- `fact`: what events say, one table per event type, per entity the latest event. Their columns are
-- said in projection.py. The tables below, and the views over both, are what people query. Rows are
-- a function of the SET of events, so order of arrival cannot matter. Times are UTC.
create schema fact;

create table meta (form varchar, log varchar);
create table event (id uuid, time timestamp, type varchar, run_id varchar);
create table segment (name varchar);

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
-- crash: the cause of one; null for an episode that has an outcome. seconds: simulated.
create table episode (
    key varchar, task varchar, scenario varchar, success boolean, steps bigint, seconds double,
    crash varchar, seed ubigint);
-- Of every commit, as its evaluation wrote them; task '' is the total. [low, high] is null where
-- there were none written, and the counts are of episodes.
create table score (
    key varchar, attempt varchar, run_id varchar, task varchar, n bigint, successes bigint,
    crashed bigint, pending bigint, rate double, low double, high double);
-- What a stage measured of a model, of every commit; [low, high] is the 95 % interval it wrote.
create table measure (
    key varchar, attempt varchar, run_id varchar, task varchar, name varchar, value double,
    n bigint, low double, high double);
create table package (digest varchar, name varchar, version varchar);
create table fact.variant (ablation_id varchar, variant varchar, position integer, overrides json);
create table fact.effect (
    ablation_id varchar, variant varchar, path varchar, old json, new json, success double,
    n bigint, low double, high double, p_value double, decision varchar, letters varchar);
