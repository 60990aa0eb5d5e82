-- A key by itself, a unique prefix of at least 8 hex digits, or an alias. Fails by name otherwise.
-- (`wanted` guards the errors: DuckDB evaluates a scalar subquery even where its row is dropped.)
create macro find_key(ref, wanted) as (
    with known as (
        select key from fact.committed where starts_with(key, ref)
        union select key from stage_spec where starts_with(key, ref)
        union select key from fact.alias where alias = ref and key is not null)
    select case
        when not wanted then null
        when length(ref) < 8 and not contains(ref, '@')
            then error('give at least 8 digits of the key, not ' || ref)
        when count(*) = 0 then error('no key or alias is ' || ref)
        when count(*) > 1 then error(count(*)::varchar || ' keys begin with ' || ref)
        else any_value(key) end
    from known);

create macro key_of(ref) as find_key(ref, true);

-- Where a trace begins: the artifact itself, or the evaluations of a run (its last stages when it
-- evaluated nothing).
create macro roots(ref) as table
with planned as materialized (select stage, kind, key from stage_spec where run_id = ref),
resolved as (
    select stage, artifact_key from fact.stage_resolved
    where run_id = ref and artifact_key is not null),
stages as materialized (
    select stage, kind, coalesce(artifact_key, key) as key
    from planned left join resolved using (stage)),
chosen as materialized (
    select key from stages where kind = 'evaluate'
        or ((select count(*) from planned where kind = 'evaluate') = 0
            and stage not in (select upstream_stage from stage_input where run_id = ref)))
select distinct key from chosen
union all
select key from (
    select find_key(ref, (select count(*) from planned) = 0) as key) where key is not null;

-- The keys of everything the artifact was made from, itself included. `role` is the shortest path
-- of input slots to it, `depth` its length; they are null beyond 40 steps and in ancestries of more
-- than 5,000 artifacts, where finding them would cost more than the ancestry itself. `shared`: also
-- by way of the artifacts whose files an early cutoff shares.
create macro ancestry(ref, shared := true) as table
with recursive root as materialized (select key from roots(ref)),
link as materialized (
    select key, upstream_key, role from edge where shared or role <> 'same bytes'),
closure(key) as (
    select key from root
    union
    select e.upstream_key from closure c join link e on e.key = c.key),
inner_edge as materialized (
    select e.key, e.upstream_key, e.role from link e
    where (select count(*) from closure) <= 5000 and e.key in (select key from closure)),
place(key, depth, role) using key (key) as (
    select key, 0, '' from root
    union
    select e.upstream_key, min(p.depth) + 1, min(p.role || '/' || e.role)
    from place p join inner_edge e on e.key = p.key
    where p.depth < 40
        and not exists (select 1 from recurring.place r where r.key = e.upstream_key)
    group by e.upstream_key)
select c.key, p.depth, ltrim(p.role, '/') as role
from closure c left join place p using (key);

-- Everything the artifact was made from, itself included.
create macro upstream(ref) as table
select c.key, a.kind, c.depth, c.role, a.content, a.present, a.created_at
from ancestry(ref) c left join artifact a using (key);

-- Everything that was made from any of a list of artifacts (full keys), themselves included.
create macro downstream_of(keys) as table
with recursive link as materialized (select key, upstream_key from edge),
closure(key) as (
    select unnest(keys)
    union
    select e.key from closure c join link e on e.upstream_key = c.key)
select c.key, a.kind, a.content, a.present, a.run_id, a.created_at
from closure c left join artifact a using (key);

-- Everything that was made from the artifact, itself included.
create macro downstream(ref) as table
from downstream_of((select list(key) from roots(ref)));

-- Which bytes, configuration and code produced this: one row per artifact behind it.
create macro trace(ref) as table
select c.depth, c.role, a.kind, c.key, a.content, a.files, a.bytes, a.recipe, a.seed, a.sources,
    a.code, a.code_fingerprint, a.git_commit, a.git_dirty, a.diff_digest, a.run_id, a.attempt,
    a.seconds, a.created_at, a.linked_to, a.continued_from, a.continued_step, a.present
from ancestry(ref) c left join artifact a using (key);

-- Configuration by place: a run's stages by name, an artifact's ancestry by role.
create macro configuration(ref) as table
with spec as (
    select stage as place, kind, key, recipe, seed, code, sources from stage_spec
    where run_id = ref
    union all
    select c.role, a.kind, a.key, a.recipe, a.seed, a.code, a.sources
    from ancestry(ref, shared := false) c join fact.committed a using (key)
    where not exists (select 1 from fact.run_started where run_id = ref))
select place, 'kind' as path, kind as value, key from spec
union all select place, 'seed', seed::varchar, key from spec
union all select place, 'code', code, key from spec
union all
select place, 'recipe' || substr(leaf.fullkey, 2), leaf.value::varchar, spec.key
from spec, json_tree(spec.recipe) leaf
where leaf.type not in ('OBJECT', 'ARRAY') or leaf.value::varchar in ('{}', '[]')
union all
select place, 'sources' || substr(leaf.fullkey, 2), leaf.value::varchar, spec.key
from spec, json_tree(spec.sources) leaf
where leaf.type not in ('OBJECT', 'ARRAY');

-- What the stages of a run came out as.
create macro outcome(ref) as table
select stage as place, key, 'content' as path, content as value from run_artifact
where run_id = ref
union all
select stage, run_artifact.key, 'metrics' || substr(leaf.fullkey, 2), leaf.value::varchar
from run_artifact, json_tree(metrics) leaf
where run_id = ref and leaf.type not in ('OBJECT', 'ARRAY');

-- Leaf by leaf: what differs between two runs, or between all that two artifacts were made from;
-- and where runs made the same twice, what came out otherwise.
create macro config_diff(a, b) as table
with old_outcome as materialized (from outcome(a)),
new_outcome as materialized (from outcome(b))
select place, path, x.value as old, y.value as new
from configuration(a) x full join configuration(b) y using (place, path)
where x.value is distinct from y.value
union all
select place, path, x.value, y.value
from (from old_outcome semi join new_outcome using (place, key)) x
    full join (from new_outcome semi join old_outcome using (place, key)) y
    using (place, key, path)
where x.value is distinct from y.value;
