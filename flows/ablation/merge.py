"""Pipelines merged by key: one graph in which what several of them share is there once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from flows.ablation.variants import BASE, AblationRequest
from flows.runs.planning import Prepared, Request
from foundry_core.config.validation import validate
from foundry_core.evaluation.closed_loop import scenarios_of
from foundry_core.identity.code import CodeIndex
from foundry_core.pipeline.attempts import known_attempts, scaled
from foundry_core.pipeline.graph import Pipeline, StageNode
from foundry_core.pipeline.plan import Plan, StagePlan, plan
from foundry_core.pipeline.reasons import Baseline, BaselineStage
from foundry_core.pipeline.registry import stage_kind
from foundry_core.pipeline.spec import StageSpec, identify_stage
from foundry_core.pipeline.stage import ArtifactType, Upstream, Work
from foundry_core.store.base import Store
from foundry_core.store.catalog import StoreCatalog, load_baseline

# A path, its value in the base and in the variant.
Changed = tuple[str, Any, Any]
VERDICT = "verdict"
CONTROL = "evaluate_control"


@dataclass(frozen=True, kw_only=True)
class SeedRun:
    """One variant with one seed: a whole pipeline.

    several: whether there are other seeds of the variant. parts: the stages that make up its
    evaluation, one unless it is looked at early; played: how many of them it plays at most.
    controls: control → the stage that plays it on the scenarios of the whole evaluation. quality:
        stages that examine the models which the evaluated policy is made from. names:
    stage → its name in the merged graph, filled in by `merge`.
    """

    variant: str
    seed: int
    several: bool
    overrides: tuple[tuple[str, Any], ...]
    pipeline: Pipeline
    specs: Mapping[str, StageSpec]
    parts: tuple[str, ...]
    played: int
    controls: Mapping[str, str]
    quality: tuple[str, ...] = ()
    names: dict[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """What tables call it."""
        return f"{self.variant}/{self.seed}" if self.several else self.variant

    @property
    def evaluations(self) -> dict[str, str]:
        """What the verdict calls them → the stages of the parts that it plays."""
        if len(self.parts) == 1:
            return {self.label: self.parts[0]}
        numbered = enumerate(self.parts[: self.played], 1)
        return {f"{self.label}.{number}": part for number, part in numbered}

    @cached_property
    def scope(self) -> set[str]:
        """The parts that it plays, the controls, the models' exams, and what these need."""
        wanted = [*self.evaluations.values(), *self.controls.values(), *self.quality]
        return self.pipeline.with_ancestors(wanted)

    @property
    def rounds(self) -> int:
        """Scenarios per task of all its parts."""
        recipes: list[Any] = [self.pipeline.stages[part].recipe for part in self.parts]
        return sum(recipe.episodes_per_task for recipe in recipes)

    def stage_name(self, stage: str) -> str:
        """What a stage is called in the merged graph if no seed run before needs it."""
        return f"{self.label}:{stage}"


def merge(
    request: AblationRequest,
    seed_runs: Sequence[SeedRun],
    code: CodeIndex,
    store: Store,
    changes: Mapping[str, Sequence[Changed]],
    started: int | None = None,
) -> Prepared:
    """The merged graph of the seed runs and the verdict over their evaluations, planned. changes:
    of every variant. started: variants of the ablation as it began, where some have dropped out
    since.

    Reasons name the pipeline's own stages: the base is compared with its latest run, every other
    seed run with the base.
    """
    nodes: dict[str, StageNode] = {}
    specs: dict[str, StageSpec] = {}
    first_names: dict[str, str] = {}
    for seed_run in seed_runs:
        _add(seed_run, nodes, specs, first_names)
    nodes[VERDICT] = _verdict(seed_runs, request, changes, started)
    specs[VERDICT] = identify_stage(nodes[VERDICT], specs, code, request.strict_code)
    first = seed_runs[0]
    pipeline = Pipeline(
        name=f"{first.pipeline.name}-ablation",
        seed=first.pipeline.seed,
        stages=nodes,
        overrides=request.overrides,
        notes={
            merged: r.pipeline.notes[stage]
            for r in seed_runs
            for stage, merged in r.names.items()
            if stage in r.pipeline.notes
        },
        views={
            merged: r.pipeline.views[stage]
            for r in reversed(seed_runs)
            for stage, merged in r.names.items()
        },
    )
    previous = load_baseline(store, first.pipeline.name)
    against = Baseline(
        run_id=previous.run_id if previous else BASE, stages=_baseline(seed_runs, previous)
    )
    catalog = StoreCatalog(store, specs.values())
    planned = plan(
        pipeline,
        specs,
        catalog,
        baseline=against,
        only=[VERDICT],
        strict_env=request.strict_env,
        attempts=known_attempts(),
    )
    return Prepared(
        request=Request(
            pipeline=request.pipeline,
            overrides=request.overrides,
            strict_code=request.strict_code,
            strict_env=request.strict_env,
            strict_reads=request.strict_reads,
        ),
        pipeline=pipeline,
        specs=specs,
        plan=_in_plain_names(planned, seed_runs),
        store=store,
    )


def _add(
    seed_run: SeedRun,
    nodes: dict[str, StageNode],
    specs: dict[str, StageSpec],
    first_names: dict[str, str],
) -> None:
    """Adds what no seed run before had. Upstream comes first in a pipeline, so it is named."""
    scope = seed_run.scope
    for stage, node in seed_run.pipeline.stages.items():
        if stage not in scope:
            continue
        spec = seed_run.specs[stage]
        merged = first_names.setdefault(spec.key, seed_run.stage_name(stage))
        seed_run.names[stage] = merged
        if merged in nodes:
            continue
        inputs = _renamed(node.inputs, seed_run.names)
        nodes[merged] = replace(node, name=merged, inputs=inputs)
        specs[merged] = replace(spec, name=merged, upstream=inputs)


def _renamed(
    wiring: Mapping[str, Mapping[str, str]], names: Mapping[str, str]
) -> dict[str, dict[str, str]]:
    return {
        slot: {label: names.get(up, up) for label, up in named.items()}
        for slot, named in wiring.items()
    }


def _verdict(
    seed_runs: Sequence[SeedRun],
    request: AblationRequest,
    changes: Mapping[str, Sequence[Changed]],
    started: int | None,
) -> StageNode:
    stage = stage_kind(VERDICT)
    variants: dict[str, list[str]] = {}
    upstream: dict[str, dict[str, Upstream]] = {"evaluations": {}, "controls": {}, "quality": {}}
    for r in seed_runs:
        variants.setdefault(r.variant, []).extend(r.evaluations)
        for label, part in r.evaluations.items():
            upstream["evaluations"][label] = _upstream(r, part)
        for name, control in r.controls.items():
            upstream["controls"].setdefault(name, _upstream(r, control))
        for exam in r.quality:
            if r.names[exam] == r.stage_name(exam):  # else one before has the same
                upstream["quality"][r.names[exam]] = _upstream(r, exam)
    values: dict[str, Any] = {"base": seed_runs[0].variant, "variants": variants}
    values |= {"alpha": request.alpha, "started": started and started - 1}
    if request.design is None:
        values["settings"] = _settings(seed_runs[0].variant, changes)
    if request.design is not None:
        rounds = seed_runs[0].rounds
        values["race"] = {"design": request.design.model_dump(), "rounds": rounds}
    recipe = validate(stage.Recipe, values, VERDICT)
    stage.check(recipe, upstream)
    return StageNode(
        name=VERDICT,
        stage=stage,
        recipe=recipe,
        resources=stage.Resources(),
        seed=0,
        inputs={
            slot: {label: one.name for label, one in named.items()}
            for slot, named in upstream.items()
            if named
        },
    )


def _settings(base: str, changes: Mapping[str, Sequence[Changed]]) -> dict[str, Any] | None:
    """What each variant sets, the base what any of them changes; None where they can be no more
    than pairs."""
    if len(changes) < 3:
        return None
    before = {path: old for changed in changes.values() for path, old, _ in changed}
    if not before:
        return None
    found = {name: {path: new for path, _, new in changed} for name, changed in changes.items()}
    return {**found, base: before}


def _upstream(seed_run: SeedRun, stage: str) -> Upstream:
    node = seed_run.pipeline.stages[stage]
    return Upstream(name=seed_run.names[stage], kind=node.kind, recipe=node.recipe)


def controls_of(pipeline: Pipeline, evaluation: str) -> dict[str, str]:
    """Control → the stage that plays it on the scenarios of the evaluation."""
    asked = scenarios_of(pipeline.stages[evaluation].recipe.model_dump(mode="json"))
    found: dict[str, str] = {}
    for name, node in pipeline.stages.items():
        recipe = node.recipe.model_dump(mode="json")
        if node.kind == CONTROL and scenarios_of(recipe) == asked:
            found.setdefault(recipe["control"], name)
    return found


def quality_of(pipeline: Pipeline, evaluation: str) -> tuple[str, ...]:
    """The stages that examine a model which the evaluated policy is made from."""
    made_from = pipeline.with_ancestors([evaluation])
    return tuple(
        name
        for name, node in pipeline.stages.items()
        if node.stage.output == ArtifactType.QUALITY
        and made_from.issuperset(node.inputs["model"].values())
    )


def _baseline(seed_runs: Sequence[SeedRun], previous: Baseline | None) -> dict[str, BaselineStage]:
    """What every stage is explained against, under its name in the merged graph."""
    base = seed_runs[0]
    of_base = {stage: BaselineStage.of(spec) for stage, spec in base.specs.items()}
    found: dict[str, BaselineStage] = {}
    for seed_run in seed_runs:
        for stage, merged in seed_run.names.items():
            if merged in found:
                continue
            if seed_run is not base and stage in base.specs:
                old = of_base[stage]
            elif seed_run is base and previous and stage in previous.stages:
                old = previous.stages[stage]
            else:
                continue
            found[merged] = replace(old, upstream=_renamed(old.upstream, seed_run.names))
    return found


def _in_plain_names(planned: Plan, seed_runs: Sequence[SeedRun]) -> Plan:
    """Reasons name `vla.training.steps`, not of `steps=20:vla.training.steps`; and what has
    never been built is expected to take as long as its counterpart in the base, by its amount."""
    plain = {merged: stage for r in seed_runs for stage, merged in r.names.items()}
    base, pipeline = seed_runs[0].names, seed_runs[0].pipeline
    owners = {merged: r for r in reversed(seed_runs) for merged in r.names.values()}
    rows: dict[str, StagePlan] = {}
    for name, row in planned.stages.items():
        reasons = tuple(
            replace(
                reason,
                path=_plain(reason.path, name, plain),
                upstream=plain.get(reason.upstream or "", reason.upstream),
            )
            for reason in row.reasons
        )
        stage = plain.get(name, name)
        known = rows.get(base.get(stage, ""))
        unknown = row.action == "run" and row.estimated_seconds is None and name in owners
        if unknown and known is not None and known.estimated_seconds is not None:
            then, now = _work(pipeline, stage), _work(owners[name].pipeline, stage)
            seconds = scaled(known.estimated_seconds, then, now)
            if seconds is not None:
                row = replace(row, estimated_seconds=seconds, estimated_by=known.estimated_by)
        rows[name] = replace(row, reasons=reasons)
    return replace(planned, stages=rows)


def _work(pipeline: Pipeline, stage: str) -> Work | None:
    node = pipeline.stages[stage]
    return node.stage.work(node.recipe, pipeline.views[stage].inputs)


def _plain(path: str, name: str, plain: Mapping[str, str]) -> str:
    if path.startswith(f"{name}."):
        return plain.get(name, name) + path.removeprefix(name)
    return plain.get(path, path)
