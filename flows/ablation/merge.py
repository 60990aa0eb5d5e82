"""Pipelines united by key: one graph in which what several of them share stands once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from flows.ablation.variants import BASE
from flows.run.planning import Prepared, Request
from foundry_core.config.validation import validate
from foundry_core.identity.code import CodeIndex
from foundry_core.pipeline.graph import Pipeline, StageNode
from foundry_core.pipeline.plan import Baseline, BaselineStage, Plan, StagePlan, plan
from foundry_core.pipeline.registry import stage_kind
from foundry_core.pipeline.spec import StageSpec, identify_stage
from foundry_core.pipeline.stage import Upstream
from foundry_core.store.base import Store
from foundry_core.store.catalog import StoreCatalog, load_baseline

VERDICT = "verdict"


@dataclass(frozen=True, kw_only=True)
class Replicate:
    """One variant with one seed: a whole pipeline.

    several: whether there are other seeds of the variant. scope: the stages that its evaluation
    needs. names: stage → its name in the union, filled in by `unite`.
    """

    variant: str
    seed: int
    several: bool
    overrides: tuple[tuple[str, Any], ...]
    pipeline: Pipeline
    specs: Mapping[str, StageSpec]
    scope: frozenset[str]
    names: dict[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return f"{self.variant}/{self.seed}" if self.several else self.variant

    def stage_name(self, stage: str) -> str:
        return f"{self.label}:{stage}"


def unite(
    request: Request,
    replicates: Sequence[Replicate],
    evaluation: str,
    *,
    alpha: float,
    code: CodeIndex,
    store: Store,
) -> Prepared:
    """The union of the replicates' graphs and the verdict over their evaluations, planned.

    Reasons are told in the pipeline's own stage names: the base against its latest run, every
    other replicate against the base.
    """
    nodes: dict[str, StageNode] = {}
    specs: dict[str, StageSpec] = {}
    owners: dict[str, str] = {}
    for replicate in replicates:
        _add(replicate, nodes, specs, owners)
    nodes[VERDICT] = _verdict(replicates, evaluation, alpha)
    specs[VERDICT] = identify_stage(nodes[VERDICT], specs, code, request.strict_code)
    first = replicates[0]
    pipeline = Pipeline(
        name=f"{first.pipeline.name}-ablation",
        seed=first.pipeline.seed,
        stages=nodes,
        overrides=request.overrides,
    )
    previous = load_baseline(store, first.pipeline.name)
    worked_out = plan(
        pipeline,
        specs,
        StoreCatalog(store, specs.values()),
        baseline=Baseline(
            run_id=previous.run_id if previous else BASE,
            stages=_baseline(replicates, previous),
        ),
        only=[VERDICT],
    )
    told = _in_plain_names(worked_out, replicates)
    return Prepared(request=request, pipeline=pipeline, specs=specs, plan=told, store=store)


def _add(
    replicate: Replicate,
    nodes: dict[str, StageNode],
    specs: dict[str, StageSpec],
    owners: dict[str, str],
) -> None:
    """Adds what no replicate before had. Upstream comes first in a pipeline, so it is named."""
    for stage, node in replicate.pipeline.stages.items():
        if stage not in replicate.scope:
            continue
        spec = replicate.specs[stage]
        united = owners.setdefault(spec.key, replicate.stage_name(stage))
        replicate.names[stage] = united
        if united in nodes:
            continue
        inputs = _renamed(node.inputs, replicate.names)
        nodes[united] = replace(node, name=united, inputs=inputs)
        specs[united] = replace(spec, name=united, upstream=inputs)


def _renamed(
    wiring: Mapping[str, Mapping[str, str]], names: Mapping[str, str]
) -> dict[str, dict[str, str]]:
    return {
        slot: {label: names.get(up, up) for label, up in named.items()}
        for slot, named in wiring.items()
    }


def _verdict(replicates: Sequence[Replicate], evaluation: str, alpha: float) -> StageNode:
    stage = stage_kind(VERDICT)
    variants: dict[str, list[str]] = {}
    for replicate in replicates:
        variants.setdefault(replicate.variant, []).append(replicate.label)
    base = replicates[0].variant
    recipe = validate(stage.Recipe, {"base": base, "variants": variants, "alpha": alpha}, VERDICT)
    upstream = {
        r.label: Upstream(
            name=r.names[evaluation],
            kind=r.pipeline.stages[evaluation].kind,
            recipe=r.pipeline.stages[evaluation].recipe,
        )
        for r in replicates
    }
    stage.check(recipe, {"evaluations": upstream})
    return StageNode(
        name=VERDICT,
        stage=stage,
        recipe=recipe,
        resources=stage.Resources(),
        seed=0,
        inputs={"evaluations": {r.label: r.names[evaluation] for r in replicates}},
    )


def _baseline(
    replicates: Sequence[Replicate], previous: Baseline | None
) -> dict[str, BaselineStage]:
    """What every stage of the union is explained against, under its name in the union."""
    base = replicates[0]
    found: dict[str, BaselineStage] = {}
    for replicate in reversed(replicates):
        for stage, united in replicate.names.items():
            if replicate is not base and stage in base.specs:
                old = BaselineStage.of(base.specs[stage])
            elif replicate is base and previous and stage in previous.stages:
                old = previous.stages[stage]
            else:
                continue
            found[united] = replace(old, upstream=_renamed(old.upstream, replicate.names))
    return found


def _in_plain_names(worked_out: Plan, replicates: Sequence[Replicate]) -> Plan:
    """Reasons speak of `vla.training.steps`, not of `steps=20:vla.training.steps`; and what has
    never been built is expected to take as long as its counterpart in the base."""
    plain = {united: stage for r in replicates for stage, united in r.names.items()}
    base = replicates[0].names
    rows: dict[str, StagePlan] = {}
    for name, row in worked_out.stages.items():
        reasons = tuple(
            replace(
                reason,
                path=_plain(reason.path, name, plain),
                upstream=plain.get(reason.upstream or "", reason.upstream),
            )
            for reason in row.reasons
        )
        counterpart = rows.get(base.get(plain.get(name, name), ""))
        seconds = row.estimated_seconds
        if row.action == "run" and seconds is None and counterpart is not None:
            seconds = counterpart.estimated_seconds
        rows[name] = replace(row, reasons=reasons, estimated_seconds=seconds)
    return replace(worked_out, stages=rows)


def _plain(path: str, name: str, plain: Mapping[str, str]) -> str:
    if path in plain:
        return plain[path]
    prefix = f"{name}."
    return (
        f"{plain.get(name, name)}.{path.removeprefix(prefix)}" if path.startswith(prefix) else path
    )
