"""An ablation worked out before anything runs: variants × seeds merged into one graph.

Every seed run (a variant with one seed) is a pipeline of its own; stages with equal keys are one
stage of the merged graph, so what variants share runs once. The graph ends in one `verdict` stage
over the seed runs' evaluations. Imports neither prefect, ray nor torch.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from flows.ablation.merge import Changed, SeedRun, controls_of, merge, quality_of
from flows.ablation.parts import in_parts, standing
from flows.ablation.space import Change
from flows.ablation.variants import BASE, AblationRequest, Variant, expand
from flows.runs.planning import Prepared
from foundry_core.config.overrides import STAGE_KEYS
from foundry_core.config.suggest import nearest
from foundry_core.errors import FoundryError
from foundry_core.evaluation.design import Standing
from foundry_core.home import store_uri
from foundry_core.identity.code import CodeIndex
from foundry_core.pipeline.cost import Cost, cost_of, plain_name, resources_of
from foundry_core.pipeline.graph import Pipeline, Shared, load_pipeline
from foundry_core.pipeline.plan import StagePlan
from foundry_core.pipeline.registry import stage_kind
from foundry_core.pipeline.spec import Identified, identify
from foundry_core.pipeline.stage import MODELS, ArtifactType
from foundry_core.store.base import Store
from foundry_core.store.manifest import Artifact
from foundry_core.store.open import open_store

MOST_SEEDS = 100
# What trains and what evaluates; data stay the same for all seeds, and are shared.
_VARIES_WITH_SEED = (*MODELS, ArtifactType.EVALUATION)


class NothingVaried(FoundryError):
    """All variants are the same."""


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """A request worked out against the store as it is now.

    merged: the merged graph as a request that any run can execute; its stages are called
        `variant/seed:stage` after the first seed run that needs them.
    changes: variant → (path, value in the base, value here). notes: what was left out, and why.
    started: variants there were, where some dropped out. standing: of the race, where variants are
        looked at early; the merged graph then has what it may need at most.
    """

    request: AblationRequest
    pipeline: Pipeline
    evaluation: str
    seed_runs: tuple[SeedRun, ...]
    merged: Prepared
    changes: Mapping[str, tuple[Changed, ...]]
    notes: tuple[str, ...] = ()
    started: int | None = None
    standing: Standing | None = None

    @cached_property
    def by_variant(self) -> Mapping[str, tuple[SeedRun, ...]]:
        names = dict.fromkeys(seed_run.variant for seed_run in self.seed_runs)
        return {name: tuple(r for r in self.seed_runs if r.variant == name) for name in names}

    def rows(self, seed_run: SeedRun) -> dict[str, StagePlan]:
        """A seed run's part of the plan, under the pipeline's own stage names."""
        if seed_run.label not in self._rows:
            rows = self.merged.plan.stages
            self._rows[seed_run.label] = {
                stage: replace(rows[merged], name=stage)
                for stage, merged in seed_run.names.items()
                if merged in rows
            }
        return self._rows[seed_run.label]

    @cached_property
    def _rows(self) -> dict[str, dict[str, StagePlan]]:
        return {}

    def first_needs(self, seed_run: SeedRun, stage: str) -> bool:
        """Whether this seed run is the first of those that share the stage: the merged graph calls
        the stage after it."""
        return seed_run.names[stage] == seed_run.stage_name(stage)

    def next_parts(self, standing: Standing) -> list[str]:
        """The stages of the merged graph that the next look needs; none after the last."""
        if standing.look is None:
            return []
        running = [r for r in self.seed_runs if r.variant in standing.running]
        return [r.names[r.parts[standing.look - 1]] for r in running]

    @property
    def at_most(self) -> list[StagePlan]:
        """Parts of later looks: whether they are played, the looks before decide."""
        if self.standing is None:
            return []
        soon = set(self.next_parts(self.standing))
        rows = self.merged.plan.stages
        parts = [r.names[part] for r in self.seed_runs for part in r.evaluations.values()]
        return [rows[name] for name in parts if rows[name].action == "run" and name not in soon]

    def cost(self, gpu_rate: float | None = None) -> Cost:
        """Of the work still to do at most, each shared stage once."""
        return self.merged.cost(gpu_rate)

    def cost_by_stage(self, gpu_rate: float | None = None) -> dict[str, Cost]:
        """The same of all that the seed runs call alike: stage → what it costs in all of them."""
        found: dict[str, list[StagePlan]] = {}
        for row in self.merged.plan.to_run():
            found.setdefault(plain_name(row.name), []).append(row)
        resources = resources_of(self.merged.pipeline)
        return {stage: cost_of(rows, resources, gpu_rate) for stage, rows in found.items()}

    def unshared_cost(self) -> Cost:
        """What the seed runs would cost if each did all of its work alone."""
        plan, resources = self.merged.plan, resources_of(self.merged.pipeline)
        rows = [
            plan.stages[merged]
            for r in self.seed_runs
            for stage, merged in r.names.items()
            if stage in r.scope and plan.stages[merged].action == "run"
        ]
        return cost_of(rows, resources)


def plan_ablation(request: AblationRequest, store: Store | None = None) -> Ablation:
    """Raises FoundryError for every mistake that can be known before a device is touched."""
    if not 1 <= request.seeds <= MOST_SEEDS:
        raise FoundryError(
            f"seeds = {request.seeds}: must be between 1 and {MOST_SEEDS}", "e.g. --seeds 3"
        )
    variants = expand(request.vary, request.variants, request.sample)
    design = request.design
    shared = Shared()
    base = load_pipeline(request.pipeline, request.overrides, kinds=stage_kind, shared=shared)
    evaluation = compared_stage(base, request.evaluation)
    code, known = CodeIndex(), Identified()
    first_seed = request.first_seed
    seed_runs: list[SeedRun] = []
    changes: dict[str, tuple[Changed, ...]] = {}
    notes: list[str] = []
    seen: dict[str, str] = {}

    def seed_run(variant: Variant, seed: int) -> SeedRun:
        return _seed_run(request, variant, evaluation, seed, code, shared, known)

    for variant in variants:
        first = seed_run(variant, first_seed)
        key = first.specs[first.parts[0]].key
        changed = tuple(
            (path, value_at(base, path), value_at(first.pipeline, path))
            for path, _ in variant.overrides
        )
        if key in seen:
            notes.append(_same(variant, changed, seen[key], evaluation))
            continue
        seen[key] = variant.name
        changes[variant.name] = changed
        seed_runs.append(first)
        for seed in range(first_seed + 1, first_seed + request.seeds):
            seed_runs.append(seed_run(variant, seed))
    if len(seed_runs) < 2:
        raise NothingVaried(
            "nothing is varied: " + ("; ".join(notes) or "only the base is left"),
            "give --vary PATH=VALUE,VALUE, --variant NAME:PATH=VALUE, or --seeds N",
        )
    store = store or open_store(store_uri())
    planned = Ablation(
        request=request,
        pipeline=base,
        evaluation=evaluation,
        seed_runs=tuple(seed_runs),
        merged=merge(request, seed_runs, code, store, changes),
        changes=changes,
        notes=tuple(notes),
    )
    return planned if design is None else _with_standing(planned, code)


def reduced(ablation: Ablation, variants: Iterable[str]) -> Ablation:
    """The same ablation with fewer variants, planned anew: for a verdict without those that
    failed. They still count in its correction: the family is the one that was started."""
    kept = set(variants)
    seed_runs = tuple(
        replace(r, played=len(r.parts), names={}) for r in ablation.seed_runs if r.variant in kept
    )
    fewer = kept < ablation.by_variant.keys()
    started = len(ablation.by_variant) if fewer else None
    store, code = ablation.merged.store, CodeIndex()
    changes = {name: changed for name, changed in ablation.changes.items() if name in kept}
    found = replace(
        ablation,
        seed_runs=seed_runs,
        merged=merge(ablation.request, seed_runs, code, store, changes, started),
        changes=changes,
        started=started,
    )
    return found if ablation.standing is None else _with_standing(found, code)


def _with_standing(ablation: Ablation, code: CodeIndex) -> Ablation:
    """With what the store knows of the race: who has stopped plays no further part."""
    plan, store = ablation.merged.plan, ablation.merged.store

    def committed(stage: str) -> Artifact | None:
        row = plan.stages[stage]
        return store.read(row.kind, row.artifact) if row.artifact else None

    now = standing_of(ablation, committed)
    most = {
        r.variant: len(r.parts) if r.variant in now.running else now.needed[r.variant]
        for r in ablation.seed_runs
    }
    if all(r.played == most[r.variant] for r in ablation.seed_runs):
        return replace(ablation, standing=now)
    seed_runs = tuple(replace(r, names={}, played=most[r.variant]) for r in ablation.seed_runs)
    merged = merge(ablation.request, seed_runs, code, store, ablation.changes, ablation.started)
    return replace(ablation, seed_runs=seed_runs, merged=merged, standing=now)


def standing_of(ablation: Ablation, artifact: Callable[[str], Artifact | None]) -> Standing:
    """Where the race stands, given what is committed of the merged graph's stages."""
    seed_runs, design = ablation.seed_runs, ablation.request.design
    if design is None:
        raise ValueError("nothing is looked at early")
    return standing(
        design,
        seed_runs[0].rounds,
        {r.variant: [r.names[part] for part in r.evaluations.values()] for r in seed_runs},
        artifact,
        ablation.merged.store,
        ablation.started or len(seed_runs),
    )


def compared_stage(pipeline: Pipeline, named: str | None) -> str:
    """Which evaluation of the pipeline an ablation compares."""
    stages = pipeline.stages
    evaluations = [n for n in stages if stages[n].stage.output == ArtifactType.EVALUATION]
    if named is not None:
        if named not in evaluations:
            raise FoundryError(f"{named!r} is no evaluation stage", nearest(named, evaluations))
        return named
    for node in stages.values():
        if node.kind == "compare":
            recipe: Any = node.recipe
            return node.inputs["evaluations"][recipe.base]
    if len(evaluations) == 1:
        return evaluations[0]
    raise FoundryError(
        f"{pipeline.name} has {len(evaluations)} evaluation stages and none that compares them: "
        f"{', '.join(evaluations) or 'nothing can be compared'}",
        "name one with --only-evaluations STAGE" if evaluations else "add an evaluate stage",
    )


def _seed_run(
    request: AblationRequest,
    variant: Variant,
    evaluation: str,
    seed: int,
    code: CodeIndex,
    shared: Shared,
    known: Identified,
) -> SeedRun:
    overrides = (*request.overrides, *variant.overrides)
    try:
        pipeline = load_pipeline(request.pipeline, overrides, kinds=stage_kind, shared=shared)
        if seed:
            overrides += _seed_overrides(pipeline, evaluation, seed)
            pipeline = load_pipeline(request.pipeline, overrides, kinds=stage_kind, shared=shared)
        parts = [evaluation]
        if request.design is not None:
            pipeline, parts = in_parts(pipeline, evaluation, request.design)
        specs = identify(pipeline, code=code, strict_code=request.strict_code, known=known)
    except FoundryError as error:
        raise FoundryError(f"variant {variant.name!r}: {error.message}", error.hint) from None
    return SeedRun(
        variant=variant.name,
        seed=seed,
        several=request.seeds > 1,
        overrides=overrides,
        pipeline=pipeline,
        specs=specs,
        parts=tuple(parts),
        played=len(parts),
        controls=controls_of(pipeline, evaluation),
        quality=quality_of(pipeline, evaluation),
    )


def _seed_overrides(pipeline: Pipeline, evaluation: str, add: int) -> tuple[Change, ...]:
    scope = pipeline.with_ancestors([evaluation])
    return tuple(
        (f"{name}.seed", node.seed + add)
        for name, node in pipeline.stages.items()
        if name in scope and node.stage.seeded and node.stage.output in _VARIES_WITH_SEED
    )


def _same(variant: Variant, changed: Sequence[Changed], known: str, evaluation: str) -> str:
    """Why a variant is left out: it equals another one. A change that the evaluation cannot feel
    is a mistake and not a variant."""
    if known == BASE and any(old != new for _, old, new in changed):
        paths = ", ".join(path for path, old, new in changed if old != new)
        raise FoundryError(
            f"variant {variant.name!r} changes {paths}, which {evaluation!r} does not depend on",
            f"vary the recipe or the inputs of a stage upstream of {evaluation!r}",
        )
    return f"{variant.name} is the same as {known}"


def value_at(pipeline: Pipeline, path: str) -> Any:
    """The value at an override's path after validation, defaults included, as JSON."""
    stage, *rest = path.split(".")
    if stage == "seed" and not rest:
        return pipeline.seed
    if stage not in pipeline.stages:
        return None
    node = pipeline.stages[stage]
    if rest[0] not in STAGE_KEYS:
        rest = ["recipe", *rest]
    value: Any = {
        "recipe": node.recipe.model_dump(mode="json"),
        "resources": node.resources.model_dump(mode="json"),
        "inputs": {slot: dict(named) for slot, named in node.inputs.items()},
        "seed": node.seed,
        "kind": node.kind,
    }
    for word in rest:
        if isinstance(value, list) and word.isdigit() and int(word) < len(value):
            value = value[int(word)]
        elif isinstance(value, Mapping):
            value = value.get(word)
        else:
            return None
    return value
