"""The plan: what a run would do and why, from configuration and the store's state alone.

Pure: nothing is written, no server, no Ray, no torch. The `catalog` is anything that can say what
is committed (the store), the baseline a past run's specs.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from typing import Any, Literal, Protocol

from foundry_core.config.suggest import nearest
from foundry_core.errors import FoundryError
from foundry_core.identity.environment import Environment
from foundry_core.pipeline.attempts import Attempts
from foundry_core.pipeline.continuing import TrunkCatalog, searched
from foundry_core.pipeline.cost import Basis, Estimate, estimate
from foundry_core.pipeline.drift import stage_environment
from foundry_core.pipeline.graph import Pipeline
from foundry_core.pipeline.reasons import (
    Baseline,
    BaselineStage,
    Category,
    Explained,
    Reason,
    differing,
    explain,
)
from foundry_core.pipeline.spec import StageSpec
from foundry_core.pipeline.trunks import Continues

Action = Literal["reuse", "run"]
# slot → label → content digest, None where an input is absent.
Contents = Mapping[str, Mapping[str, str | None]]


@dataclass(frozen=True, kw_only=True)
class Committed:
    """What the catalog says of a key. inputs: (slot, label) → content digest used. built_on: what
    is recorded of packages, variables and numerics. continued_from: the step of another budget's
    run that its seconds begin at."""

    key: str
    content: str
    inputs: Mapping[tuple[str, str], str]
    seconds: float
    built_on: Environment = field(default_factory=Environment)
    continued_from: int | None = None


class Catalog(TrunkCatalog, Protocol):
    """The store as the planner sees it."""

    def status(self, kind: str, key: str) -> tuple[str, str, Committed | None]:
        """('ok' | 'missing' | 'corrupt', problem, what is committed)."""

    def by_content(self, kind: str, input_content_key: str) -> Committed | None: ...

    def last_failure(self, key: str) -> str | None:
        """The error of the key's last attempt when that failed."""


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """One row. `artifact` is what a reuse points to; `drift` lists the functions of a training
    stage that changed since its version was declared for the reused artifact. notes: what its kind
    says of the declaration (`Stage.notes`), and more for the reader. continues: what a stage that
    runs goes on from. estimated_by: how its seconds are known (cost.py)."""

    name: str
    kind: str
    key: str
    action: Action
    reasons: tuple[Reason, ...] = ()
    inputs: Mapping[str, Any] = field(default_factory=dict)
    estimated_seconds: float | None = None
    estimated_by: Basis | Literal[""] = ""
    how: Literal["recipe", "content", "unneeded", ""] = ""
    artifact: str | None = None
    drift: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    continues: Continues | None = None

    @property
    def rebuilds(self) -> bool:
        """Whether it runs although what is committed under its key is intact."""
        return self.action == "run" and any(
            reason.category in ("FORCED", "ENVIRONMENT") for reason in self.reasons
        )

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"reasons": [asdict(reason) for reason in self.reasons]}


@dataclass(frozen=True, kw_only=True)
class Plan:
    pipeline: str
    baseline: str | None
    stages: Mapping[str, StagePlan]
    specs: Mapping[str, StageSpec]

    def to_run(self) -> list[StagePlan]:
        return [stage for stage in self.stages.values() if stage.action == "run"]

    def to_json(self) -> dict[str, Any]:
        return {
            "pipeline": self.pipeline,
            "baseline": self.baseline,
            "stages": [stage.to_json() for stage in self.stages.values()],
        }


def plan(
    pipeline: Pipeline,
    specs: Mapping[str, StageSpec],
    catalog: Catalog,
    *,
    baseline: Baseline | None = None,
    only: Iterable[str] = (),
    force: Iterable[str] = (),
    strict_env: bool = False,
    attempts: Attempts | None = None,
) -> Plan:
    """The action and reasons of every stage that `only` (default: the whole pipeline) needs.

    Lazy: an absent intermediate that no running stage reads is not rebuilt. strict_env: what would
    be reused runs, where it was built in another environment. attempts: what is known of how
    long the kinds take.
    """
    forced = set(force)
    for name in forced - pipeline.stages.keys():
        raise FoundryError(f"--force: unknown stage {name!r}", nearest(name, pipeline.stages))
    targets = list(only) or pipeline.targets
    scope = pipeline.with_ancestors([*targets, *(forced if not only else ())])
    available = _resolve_all(specs, catalog, scope, forced)
    drifted = _drifted(pipeline, specs, available)
    if strict_env:
        forced |= drifted.keys()
        available |= dict.fromkeys(drifted, Resolution(category="ENVIRONMENT"))
    running = _running(pipeline, available, targets, forced, scope)
    past = baseline.stages if baseline else {}

    @cache
    def explained(name: str) -> tuple[Reason, ...]:
        return explain(specs[name], past.get(name), explained)

    def estimated(name: str) -> Estimate | None:
        if name not in running:
            return None
        view = pipeline.views.get(name)
        return estimate(
            specs[name],
            pipeline.stages[name],
            view.inputs if view else {},
            past.get(name),
            catalog,
            searches[name].found,
            attempts or {},
        )

    searches = searched(pipeline, specs, catalog, _contents(specs, available), running - forced)
    rows = {
        name: replace(
            _row(
                spec,
                available[name],
                name in running,
                explained,
                past.get(name),
                estimated(name),
                drifted.get(name, ()),
            ),
            notes=(*pipeline.notes.get(name, ()), *searches[name].refused),
            continues=searches[name].found,
        )
        for name, spec in specs.items()
        if name in scope
    }
    return Plan(
        pipeline=pipeline.name,
        baseline=baseline.run_id if baseline else None,
        stages=rows,
        specs=specs,
    )


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """What may be reused for a stage, and how it was found; else why nothing may."""

    committed: Committed | None = None
    how: Literal["recipe", "content", ""] = ""
    category: Category = "MISSING"
    problem: str = ""

    @property
    def content(self) -> str | None:
        return self.committed.content if self.committed else None


def resolve(spec: StageSpec, contents: Contents, catalog: Catalog) -> Resolution:
    """By recipe key, if it was built from the inputs' present contents (slot → label → digest,
    None where an input is absent); else by the contents of the inputs (early cutoff)."""
    status, problem, committed = catalog.status(spec.kind, spec.key)
    if status == "ok" and committed and not _outdated(committed, contents):
        return Resolution(committed=committed, how="recipe")
    known = {
        slot: {label: digest for label, digest in named.items() if digest}
        for slot, named in contents.items()
    }
    if known == contents:
        equal = catalog.by_content(spec.kind, spec.input_content_key(known))
        if equal is not None:
            return Resolution(committed=equal, how="content")
    if status == "corrupt":
        return Resolution(category="CORRUPT", problem=problem)
    if status == "ok":
        return Resolution(category="INPUT", problem="an input was rebuilt with other content")
    failure = catalog.last_failure(spec.key)
    return Resolution(category="FAILED", problem=failure) if failure else Resolution()


def _resolve_all(
    specs: Mapping[str, StageSpec], catalog: Catalog, scope: set[str], forced: set[str]
) -> dict[str, Resolution]:
    """Every stage in scope, upstream first."""
    found: dict[str, Resolution] = {}
    for name in specs:
        if name in forced:
            found[name] = Resolution(category="FORCED")
        elif name in scope:
            found[name] = resolve(specs[name], _inputs(specs[name], found), catalog)
    return found


def _inputs(spec: StageSpec, found: Mapping[str, Resolution]) -> Contents:
    return {
        slot: {label: found[up].content for label, up in named.items()}
        for slot, named in spec.upstream.items()
    }


def _contents(
    specs: Mapping[str, StageSpec], available: Mapping[str, Resolution]
) -> dict[str, Contents]:
    """The contents of the inputs of every stage in scope."""
    return {name: _inputs(specs[name], available) for name in available}


def _drifted(
    pipeline: Pipeline, specs: Mapping[str, StageSpec], available: Mapping[str, Resolution]
) -> dict[str, tuple[Reason, ...]]:
    """How what there is now differs from what each artifact that may be reused was built on."""
    found: dict[str, tuple[Reason, ...]] = {}
    for name, resolution in available.items():
        if resolution.committed is None:
            continue
        node = pipeline.stages[name]
        now = stage_environment(node.stage, specs[name], node.resources)
        reasons = tuple(
            Reason(category="ENVIRONMENT", path=f"{d.what} {d.name}", old=d.old, new=d.new)
            for d in resolution.committed.built_on.drift_to(now)
        )
        if reasons:
            found[name] = reasons
    return found


def _outdated(committed: Committed, contents: Contents) -> bool:
    """True when an input that is present now has other content than the one that was used."""
    return any(
        digest is not None and committed.inputs.get((slot, label), digest) != digest
        for slot, named in contents.items()
        for label, digest in named.items()
    )


def _running(
    pipeline: Pipeline,
    available: Mapping[str, Resolution],
    targets: Iterable[str],
    forced: set[str],
    scope: set[str],
) -> set[str]:
    """Stages that must run: absent targets, forced ones, and absent inputs of running ones.

    What lies downstream of a running stage is asked again at run time, when the new content is
    known; until then the plan says it runs, unless its key is committed already.
    """
    running: set[str] = set()
    pending = [name for name in [*targets, *forced] if name in scope]
    while pending:
        name = pending.pop()
        if name not in running and available[name].committed is None:
            running.add(name)
            pending += [up for _, _, up in pipeline.stages[name].upstream()]
    return running


def _row(
    spec: StageSpec,
    found: Resolution,
    runs: bool,
    explained: Explained,
    old: BaselineStage | None,
    estimated: Estimate | None,
    drifted: tuple[Reason, ...],
) -> StagePlan:
    inputs = {
        slot: next(iter(named))
        if list(named.values()) == list(named) and len(named) == 1
        else named
        for slot, named in ((s, dict(n)) for s, n in spec.upstream.items())
    }
    row = StagePlan(name=spec.name, kind=spec.kind, key=spec.key, action="run", inputs=inputs)
    if runs:
        if found.category == "MISSING":
            reasons = explained(spec.name) or (Reason(category="MISSING", path="never built"),)
        elif found.category == "ENVIRONMENT":
            reasons = drifted
        else:
            reasons = (Reason(category=found.category, path=found.problem),)
        if estimated is None:
            return replace(row, reasons=reasons)
        seconds, by = estimated.seconds, estimated.by
        return replace(row, reasons=reasons, estimated_seconds=seconds, estimated_by=by)
    drift = _drift(spec, old)
    if found.committed is None:
        absent = Reason(category="MISSING", path="absent, not needed")
        return replace(row, action="reuse", how="unneeded", reasons=(absent,), drift=drift)
    artifact = found.committed.key
    return replace(
        row, action="reuse", how=found.how, artifact=artifact, drift=drift, reasons=drifted
    )


def _drift(spec: StageSpec, old: BaselineStage | None) -> tuple[str, ...]:
    if old is None or old.code != spec.code:
        return ()
    if old.code_fingerprint in ("", spec.code_fingerprint):
        return ()
    return tuple(differing(old.functions(), spec.functions))
