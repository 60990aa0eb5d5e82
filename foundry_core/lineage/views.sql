-- A run that is part of another one ends with it, though it was killed before it could say so.
create view pipeline_run as
select s.run_id, s.pipeline, s.asked, coalesce(f.status, p.status, 'running') as status,
    s.event_time as started_at, f.event_time as finished_at, f.seconds, s.overrides, s.argv,
    s.parent, s.ablation_id, s.variant, s.baseline, s.job_ref, s.host, s.git_commit,
    s.git_dirty, s.diff_digest, f.metrics, f.error
from fact.run_started s left join fact.run_finished f using (run_id)
    left join fact.run_finished p on p.run_id = s.parent;

-- What was planned, and what became of it. `planned` and `action` differ after an early cutoff, and
-- in a run that ended before all of it was done: what it had begun failed, the rest was blocked;
-- stopped is what an ablation's design left unplayed.
create view run_stage as
with tried as (
    select s.run_id, s.key, bool_or(f.state = 'committed') as built,
        arg_max(f.state, (s.event_time, s.event_id)) as state
    from fact.attempt_started s left join fact.attempt_finished f using (key, attempt, run_id)
    group by s.run_id, s.key)
select s.run_id, s.stage, s.position, s.kind, coalesce(r.key, s.key) as key, r.artifact_key,
    s.action as planned,
    case when r.action is not null then r.action
        when f.run_id is null or t.built then s.action
        when f.status = 'cancelled' and t.state = 'interrupted' then 'cancelled'
        when t.key is not null then 'failed'
        else 'blocked' end as action,
    r.how, coalesce(r.reasons, s.reasons) as reasons, r.event_time as resolved_at
from stage_spec s
    left join fact.stage_resolved r on r.run_id = s.run_id and r.stage = s.stage
    -- What a variant of an ablation needs, the ablation's own run builds, and ends with it.
    left join fact.run_finished f on f.run_id = coalesce(s.parent, s.run_id)
    left join tried t on t.run_id = coalesce(s.parent, s.run_id) and t.key = s.key
union all
-- Not a full join: filters on run_id must reach both sides.
select r.run_id, r.stage, null, null, r.key, r.artifact_key, null, r.action, r.how, r.reasons,
    r.event_time
from fact.stage_resolved r anti join stage_spec s on r.run_id = s.run_id and r.stage = s.stage;

create view attempt as
with closed as (
    -- Attempt names start again after a commit: a close without a run belongs to the latest start.
    select s.event_id, arg_min(c.state, (c.event_time, c.event_id)) as state,
        arg_min(c.error, (c.event_time, c.event_id)) as error, min(c.event_time) as event_time
    from fact.attempt_closed c asof join fact.attempt_started s
        on c.key = s.key and c.attempt = s.attempt and c.event_time >= s.event_time
    group by s.event_id)
select s.key, s.attempt, s.run_id, s.kind, s.stage,
    coalesce(f.state, c.state, 'running') as state,
    s.event_time as started_at, coalesce(f.event_time, c.event_time) as finished_at,
    f.seconds, f.cpu_seconds, f.gpu_seconds, f.peak_memory, f.resumed_from_step,
    coalesce(f.error, c.error) as error, s.host, s.pid, s.python, s.git_commit, s.git_dirty,
    s.diff_digest, s.packages_digest, s.hardware, s.environment, s.command,
    s.job_ref
from fact.attempt_started s
    left join fact.attempt_finished f
        on f.key = s.key and f.attempt = s.attempt and f.run_id = s.run_id
    left join closed c on c.event_id = s.event_id;

-- Everything that was ever committed; `present` says whether the store still has it.
create view artifact as
select c.key, c.kind, c.content, c.input_content_key, c.recipe, c.seed, c.code,
    c.code_fingerprint, c.sources,
    c.metrics, c.attempt, c.run_id, c.seconds, c.created_at, c.linked_to, c.continued_from,
    c.continued_trunk, c.continued_step, c.files, c.bytes,
    c.git_commit, c.git_dirty, c.diff_digest,
    r.key is null as present, r.event_time as removed_at, r.reason as removed_reason
from fact.committed c left join fact.removed r
    on r.key = c.key and (r.event_time, r.event_id) > (c.event_time, c.event_id);

create view alias as select alias, key, event_time as set_at from fact.alias where key is not null;

-- What trainings went on from, which is no input: a straight run has the same key and the same bytes.
-- from_key: the training of a smaller budget; trunk_key: the state that it left after `step` steps.
create view continuation as
select key, continued_from as from_key, continued_trunk as trunk_key, continued_step as step
from fact.committed where continued_from is not null;

-- Edges for closures: the inputs that were used, and after an early cutoff the artifact whose files
-- are shared.
create view edge as
select key, upstream_key, role from artifact_input
union all
select key, linked_to, 'same bytes' from fact.committed where linked_to is not null;

create view ablation as
select s.ablation_id, s.base_pipeline, s.question, s.vary, s.seeds, s.design, s.search,
    coalesce(f.status, r.status, 'running') as status,
    s.event_time as started_at, f.event_time as finished_at, f.comparison_key
from fact.ablation_started s left join fact.ablation_finished f using (ablation_id)
    left join fact.run_finished r on r.run_id = s.ablation_id;

create view ablation_variant as
with runs as (
    select ablation_id, variant, list(run_id order by run_id) as runs
    from fact.run_started where ablation_id is not null group by all)
select v.ablation_id, v.variant, v.position, v.overrides, coalesce(r.runs, []) as runs
from fact.variant v left join runs r using (ablation_id, variant);

-- The verdict on every changed path. success is a rate over n episodes, [low, high] its interval.
create view ablation_effects as
select ablation_id, a.base_pipeline, e.variant, e.path, e.old, e.new, e.success, e.n, e.low, e.high,
    e.p_value, e.decision, e.letters, a.comparison_key
from fact.effect e join ablation a using (ablation_id);

-- Every commit of an artifact; one that was built again under its key has several.
create view artifact_version as
select key, attempt, run_id, content, metrics, created_at, files, bytes,
    row_number() over (partition by key order by event_time desc, event_id desc) = 1 as latest
from fact.version;

-- What a stage came out as in its run: what the run built itself, else what was there at that time.
-- (Clocks of hosts differ: rather one that was built a little later than none.)
create view run_artifact as
select s.run_id, s.stage, v.key, v.attempt, v.run_id as built_by, v.content, v.metrics, v.created_at
from run_stage s join fact.version v on v.key = coalesce(s.artifact_key, s.key)
where (s.resolved_at is not null and s.action <> 'stopped') or v.run_id = s.run_id
qualify row_number() over (
    partition by s.run_id, s.stage
    order by v.run_id = s.run_id desc, v.created_at <= s.resolved_at desc,
        abs(epoch_us(v.created_at) - epoch_us(s.resolved_at)), v.attempt, v.run_id) = 1;

-- Success per evaluation and task, and over all tasks (task 'all'), with the interval that the
-- evaluation wrote. Crashed episodes have no success and are left out of n.
create view version_scores as
select key, attempt, run_id, if(task = '', 'all', task) as task, n, successes, crashed, pending,
    rate as success_rate, low, high
from score;

-- Of the latest commit of each key.
create view eval_scores as
select v.key, task, n, successes, crashed, pending, success_rate, low, high,
    p.upstream_key as policy_key
from version_scores v
    join artifact_version a on a.latest
        and a.key = v.key and a.attempt = v.attempt and a.run_id = v.run_id
    left join (
        select key, min(upstream_key) as upstream_key from artifact_input
        where slot = 'policy' group by key) p on p.key = v.key;

-- Of what its stages came out as in a run, whatever was built under their keys since.
create view run_scores as
select a.run_id, a.stage, a.key, s.task, s.n, s.successes, s.crashed, s.pending, s.success_rate,
    s.low, s.high
from run_artifact a join version_scores s
    on s.key = a.key and s.attempt = a.attempt and s.run_id = a.built_by;

-- What the stages of a run measured of its models, whatever was built under their keys since.
create view run_measures as
select a.run_id, a.stage, a.key, m.task, m.name, m.value, m.n, m.low, m.high
from run_artifact a join measure m
    on m.key = a.key and m.attempt = a.attempt and m.run_id = a.built_by;

-- From the language model to success, a row per evaluated policy of a run: what the exams of the
-- models that it was made from found, as far as the run has such stages. Of several exams of one
-- kind the first by name; of a text, that of a language model before that of a VLM.
create view stage_quality as
with recursive above as (
    select run_id, stage, stage as upstream from stage_spec where kind = 'evaluate'
    union
    select a.run_id, a.stage, i.upstream_stage
    from above a join stage_input i on i.run_id = a.run_id and i.stage = a.upstream),
exams as (
    select a.run_id, a.stage, m.name, m.value, e.kind, u.kind as model, e.stage as exam, m.task
    from above a
        join stage_input i on i.run_id = a.run_id and i.slot = 'model' and i.upstream_stage = a.upstream
        join stage_spec e on e.run_id = i.run_id and e.stage = i.stage
            and e.kind in ('evaluate_llm', 'evaluate_vlm')
        join stage_spec u on u.run_id = a.run_id and u.stage = a.upstream
        join run_measures m on m.run_id = e.run_id and m.stage = e.stage),
known as (
    select run_id, stage,
        first(value order by model in ('train_llm', 'import_llm') desc, exam, task)
            filter (kind = 'evaluate_llm' and name = 'bits_per_byte') as bits_per_byte,
        first(value order by model in ('train_llm', 'import_llm') desc, exam, task)
            filter (kind = 'evaluate_llm' and name = 'loss') as llm_loss,
        first(value order by exam, task) filter (kind = 'evaluate_vlm' and name = 'loss')
            as caption_loss,
        first(value order by exam, task) filter (name = 'token_f1') as caption_f1,
        first(value order by exam, task) filter (name = 'pixel_error_px') as pixel_error_px,
        first(value order by exam, task) filter (name = 'offset_error_cm') as offset_error_cm,
        first(value order by exam, task) filter (name = 'vqa_accuracy') as vqa_accuracy
    from exams group by run_id, stage),
-- Of held-out episodes, at the policy's last validation; of the averaged weights where there are.
errors as (
    select i.key, arg_max(m.value, (m.name like 'validation/ema/%', m.step)) as action_error_mm
    from artifact_input i join metric m on m.key = i.upstream_key
    where i.slot = 'policy' and m.step is not null
        and m.name in ('validation/raw/robot/position_mm', 'validation/ema/robot/position_mm')
    group by i.key)
select r.run_id, r.pipeline, r.ablation_id, r.variant, s.stage, k.llm_loss, k.bits_per_byte,
    k.caption_loss, k.caption_f1, k.pixel_error_px, k.offset_error_cm, k.vqa_accuracy,
    e.action_error_mm, s.success_rate, s.n, s.low, s.high
from run_scores s join pipeline_run r using (run_id)
    join stage_spec p on p.run_id = s.run_id and p.stage = s.stage and p.kind = 'evaluate'
    left join known k on k.run_id = s.run_id and k.stage = s.stage
    left join errors e on e.key = s.key
where s.task = 'all'
order by r.run_id, s.stage;

-- The 97.5 % point of Student's t, degrees rounded down; beyond 30 by two terms of its expansion,
-- good to .001.
create macro t95(degrees) as case
    when degrees < 1 then null
    when degrees < 31 then [
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
    2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042][floor(degrees)::bigint]
    else 1.95996 + 2.3723 / floor(degrees) + 2.8225 / floor(degrees) ** 2 end;

-- Where an effect is born and where it is lost: every measure of every variant of every ablation, in
-- the order of the pipeline, over its seed runs. low, high: of the mean over runs, null with one.
-- difference: to the base, with Welch's interval; without width where every run has the base's
-- value, since it has the base's model, and null where no run scatters. Success is a mean of rates here: its verdict is in
-- ablation_effects. seconds, gpu_seconds: of all that a run is made of, whoever built it. step_ms:
-- of the evaluation's wall clock per control step, simulator included. chunk_ms, chunk_cpu_ms: what
-- the policy alone took for a chunk, by the clock and of its process's CPUs.
create view ablation_quality as
with played as (
    select key, sum(steps) as steps, avg(seconds) filter (success) as success_seconds
    from episode group by key),
evaluated as (
    select s.run_id, round(1000 * fsum(a.seconds) / nullif(sum(p.steps), 0), 6) as step_ms,
        round(avg(p.success_seconds), 6) as success_seconds
    from run_scores s join fact.committed a using (key) join played p using (key)
        join stage_spec e on e.run_id = s.run_id and e.stage = s.stage and e.kind = 'evaluate'
    where s.task = 'all' group by s.run_id),
-- A mean over forward passes, of all parts of a race.
chunks as (
    select m.run_id,
        round(fsum(m.value * m.n) filter (m.name = 'chunk_ms')
            / nullif(sum(m.n) filter (m.name = 'chunk_ms'), 0), 6) as chunk_ms,
        round(fsum(m.value * m.n) filter (m.name = 'chunk_cpu_ms')
            / nullif(sum(m.n) filter (m.name = 'chunk_cpu_ms'), 0), 6) as chunk_cpu_ms
    from run_measures m join stage_spec e on e.run_id = m.run_id and e.stage = m.stage
        and e.kind = 'evaluate'
    where m.task = 'policy' group by m.run_id),
cost as (
    select r.run_id, round(fsum(o.seconds), 6) as seconds,
        round(fsum(f.gpu_seconds), 6) as gpu_seconds
    from run_artifact r join fact.committed c on c.key = r.key
        join fact.committed o on o.key = coalesce(c.linked_to, c.key)
        left join fact.attempt_finished f
            on f.key = o.key and f.attempt = o.attempt and f.run_id = o.run_id
    group by r.run_id),
-- A race plays an evaluation in parts.
per_run as (
    select ablation_id, variant, run_id, first(llm_loss order by stage) as llm_loss,
        first(bits_per_byte order by stage) as bits_per_byte,
        first(caption_loss order by stage) as caption_loss,
        first(caption_f1 order by stage) as caption_f1,
        first(pixel_error_px order by stage) as pixel_error_px,
        first(offset_error_cm order by stage) as offset_error_cm,
        first(vqa_accuracy order by stage) as vqa_accuracy,
        first(action_error_mm order by stage) as action_error_mm,
        sum(n * success_rate) / nullif(sum(n), 0) as success_rate
    from stage_quality where ablation_id is not null and variant is not null
    group by ablation_id, variant, run_id),
measured as (
    unpivot (
        from per_run left join evaluated using (run_id) left join chunks using (run_id)
            left join cost using (run_id))
    on llm_loss, bits_per_byte, caption_loss, caption_f1, pixel_error_px, offset_error_cm,
        vqa_accuracy, action_error_mm, success_rate, success_seconds, chunk_ms, chunk_cpu_ms,
        step_ms, seconds, gpu_seconds
    into name measure value value),
of_variant as (
    select ablation_id, variant, measure, count(*) as seeds, list(value order by run_id) as runs,
        round(favg(value), 9) as mean, round(stddev_samp(value), 9) as deviation
    from measured group by all),
named as (
    select ablation_id, variant,
        string_agg(path || ': ' || coalesce(old::varchar, 'null') || ' → '
            || coalesce(new::varchar, 'null'), '; ' order by path) as change,
        any_value(decision) as decision
    from fact.effect group by all)
select v.ablation_id, a.base_pipeline, a.question, v.variant, d.change, v.measure,
    list_position(['llm_loss', 'bits_per_byte', 'caption_loss', 'caption_f1', 'pixel_error_px',
        'offset_error_cm', 'vqa_accuracy', 'action_error_mm', 'success_rate', 'success_seconds',
        'chunk_ms', 'chunk_cpu_ms', 'step_ms', 'seconds', 'gpu_seconds'], v.measure) as position,
    v.seeds, v.runs, v.mean,
    greatest(v.mean - half, if(share, 0, null)) as low,
    least(v.mean + half, if(share, 1, null)) as high,
    b.mean as base_mean, v.mean - b.mean as difference,
    v.mean - b.mean - width as difference_low, v.mean - b.mean + width as difference_high,
    if(v.measure = 'success_rate', d.decision, null) as decision
from of_variant v join ablation a using (ablation_id)
    left join fact.variant base on base.ablation_id = v.ablation_id and base.position = 0
    left join of_variant b on b.ablation_id = v.ablation_id and b.variant = base.variant
        and b.measure = v.measure and b.variant <> v.variant
    left join named d on d.ablation_id = v.ablation_id and d.variant = v.variant,
    lateral (select v.deviation ** 2 / v.seeds as own, b.deviation ** 2 / b.seeds as other),
    lateral (select v.measure in ('success_rate', 'caption_f1', 'vqa_accuracy') as share,
        t95(v.seeds - 1) * v.deviation / sqrt(v.seeds) as half),
    lateral (select case
        when own + other = 0 then null
        when v.runs = b.runs and v.measure not in ('success_rate', 'success_seconds') then 0.0
        else sqrt(own + other) * t95((own + other) ** 2
            / (own ** 2 / (v.seeds - 1) + other ** 2 / (b.seeds - 1))) end as width);

-- Per run: what its attempts cost, and what the artifacts it reused had cost when they were built.
-- Both count once: what a run that is part of another one reuses, that one has as its own stages.
-- Rounded: sums of floats depend on the order of their terms, which rows do not have.
create view compute_spent_saved as
with cost as (
    select c.key, o.seconds, f.cpu_seconds, f.gpu_seconds
    from fact.committed c
        join fact.committed o on o.key = coalesce(c.linked_to, c.key)
        left join fact.attempt_finished f
            on f.key = o.key and f.attempt = o.attempt and f.run_id = o.run_id),
saved as (
    select s.run_id, count(*) as reused, round(fsum(c.seconds), 6) as seconds,
        round(fsum(c.cpu_seconds), 6) as cpu_seconds, round(fsum(c.gpu_seconds), 6) as gpu_seconds
    from run_stage s join cost c on c.key = coalesce(s.artifact_key, s.key)
    where s.action = 'reuse' group by s.run_id),
spent as (
    select run_id, count(*) as attempts, round(fsum(seconds), 6) as seconds,
        round(fsum(cpu_seconds), 6) as cpu_seconds, round(fsum(gpu_seconds), 6) as gpu_seconds
    from attempt group by run_id)
select r.run_id, r.pipeline,
    coalesce(p.attempts, 0) as attempts, coalesce(s.reused, 0) as reused,
    coalesce(p.seconds, 0) as spent_seconds, coalesce(own.seconds, 0) as saved_seconds,
    coalesce(p.cpu_seconds, 0) as spent_cpu_seconds,
    coalesce(own.cpu_seconds, 0) as saved_cpu_seconds,
    coalesce(p.gpu_seconds, 0) as spent_gpu_seconds,
    coalesce(own.gpu_seconds, 0) as saved_gpu_seconds
from fact.run_started r left join spent p using (run_id) left join saved s using (run_id)
    left join saved own on own.run_id = r.run_id and r.parent is null;

-- scores: stage → {success_rate, n} of every evaluation that the run made or reused.
create view run_summary as
with stages as (
    select run_id, count(*) as stages, count(*) filter (action = 'run') as ran,
        count(*) filter (action = 'reuse') as reused,
        count(*) filter (action = 'blocked') as blocked,
        count(*) filter (action = 'failed') as failed,
        count(*) filter (action = 'cancelled') as cancelled
    from run_stage group by run_id),
scores as (
    select run_id, map_from_entries(list(
        {'stage': stage, 'score': {'success_rate': success_rate, 'n': n}}
        order by stage)) as scores
    from run_scores where task = 'all' group by run_id)
select r.run_id, r.pipeline, r.status, r.started_at, r.seconds, r.overrides,
    coalesce(s.stages, 0) as stages, coalesce(s.ran, 0) as ran, coalesce(s.reused, 0) as reused,
    coalesce(s.blocked, 0) as blocked, coalesce(s.failed, 0) as failed,
    coalesce(s.cancelled, 0) as cancelled, c.scores, r.ablation_id,
    r.variant, r.git_commit, r.git_dirty, r.error
from pipeline_run r left join stages s using (run_id) left join scores c using (run_id);

create view in_flight as
select a.run_id, r.pipeline, a.stage, a.kind, a.key, a.attempt, a.host, a.pid, a.started_at,
    epoch(cast(now() at time zone 'UTC' as timestamp) - a.started_at) as seconds
from attempt a left join pipeline_run r using (run_id)
where a.state = 'running' and coalesce(r.status, 'running') = 'running';
