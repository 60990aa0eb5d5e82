"""A search, where all combinations are too dear: rungs of a growing budget, then a verdict.

Every rung is an ordinary ablation of those that are still in: keys, reuse, lineage and a verdict of
its own. What is chosen follows from the request and from what was committed, so the same search
again chooses the same and reuses what ran. The finalists meet scenarios that no rung has played,
and with several seeds trainings that no rung has seen: only so is their verdict one about them and
not about the luck for which they were kept.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from typing import Any

from flows.ablation.drivers.base import DRIVERS
from flows.ablation.merge import VERDICT, controls_of
from flows.ablation.plan import Ablation, NothingVaried, plan_ablation
from flows.ablation.space import Change, Space, check
from flows.ablation.studies import Study
from flows.ablation.variants import BASE, AblationRequest, Variant, Vary, called
from foundry_core.config.canonical import digest
from foundry_core.errors import FoundryError
from foundry_core.evaluation.statistics.halving import best, rung_sizes
from foundry_core.pipeline.cost import Cost, cost_of, resources_of, total_cost
from foundry_core.pipeline.graph import Pipeline

# Carries out an ablation; the string says which rung it is.
Carry = Callable[[Ablation, str], Mapping[str, Any]]
# Is given all rungs so far when one is decided, or when the first knows another batch.
Told = Callable[[Sequence["Rung"]], None]
_SCENARIOS = ("first_scenario", "episodes_per_task")
_VARIANTS = 16


@dataclass(frozen=True, kw_only=True)
class SearchRequest:
    """base: the pipeline, changes of all variants, how the finalists are judged (seeds, alpha), and
    the looks of the rungs. variants: how many the driver is asked for, `batch` at a time if it
    learns. budgets: of the rungs, None for one rung. reduction: one of so many goes on."""

    base: AblationRequest
    space: Space
    variants: int
    driver: str = "random"
    seed: int = 0
    batch: int = 4
    budgets: Vary | None = None
    reduction: int = 3
    finalists: int = 1

    @property
    def values(self) -> tuple[Any, ...]:
        """The rungs' budgets; of one rung, None: the pipeline's own."""
        return self.budgets.values if self.budgets else (None,)

    @property
    def sizes(self) -> list[int]:
        """How many variants play each rung. Where no more than the finalists are left, there is
        nothing to choose, and they are judged at once."""
        sizes = rung_sizes(self.variants, len(self.values), self.reduction, self.finalists)
        return [size for number, size in enumerate(sizes) if not number or size > self.finalists]

    @property
    def id(self) -> str:
        """The same search again has it, too."""
        stated = asdict(replace(self, space={}))
        stated["space"] = {path: one.model_dump() for path, one in self.space.items()}
        return f"search-{digest(stated)[:12]}"

    @property
    def title(self) -> str:
        words = [f"search of {self.variants} variants over {', '.join(self.space)}"]
        words += [f"rungs {self.budgets.path}={_listed(self.values)}"] if self.budgets else []
        return "; ".join([*words, self.driver])

    def checked(self) -> "SearchRequest":
        """FoundryError for what can be known to be wrong before anything is planned."""
        check(self.space, 1 if DRIVERS.get(self.driver).learns else self.variants)
        if self.batch < 1:
            raise FoundryError(f"batch = {self.batch}: at least 1", "e.g. 4")
        _ = self.sizes
        if self.budgets is not None:
            _check_budgets(self.budgets, self.space)
        return self

    def rung(self, number: int, variants: Sequence[Variant]) -> AblationRequest:
        """The ablation of these variants at the budget of a rung (0 is the first)."""
        asked = replace(self.base, seeds=1, variants=tuple(variants))
        if asked.looks and not asked.family:
            asked = replace(asked, family="best")
        return self._at(asked, number)

    def final(
        self, finalists: Sequence[Variant], pipeline: Pipeline, named: str
    ) -> AblationRequest:
        """What judges them: the largest budget, scenarios that no rung plays, and with several
        seeds trainings of their own."""
        asked = replace(
            self.base,
            overrides=(*self.base.overrides, *unplayed(pipeline, named)),
            variants=tuple(finalists),
            first_seed=1 if self.base.seeds > 1 else 0,
            looks=None,
            spending=None,
            family=None,
        )
        return self._at(asked, None)

    def _at(self, asked: AblationRequest, number: int | None) -> AblationRequest:
        value = self.values[-1 if number is None else number]
        record = {"id": self.id, "rung": number, "budget": value}
        changes = ((self.budgets.path, value),) if self.budgets else ()
        return replace(asked, overrides=(*asked.overrides, *changes), search=record)


def asked_search(
    study: Study | None,
    base: AblationRequest,
    space: Space,
    variants: int | None,
    **options: Any,
) -> SearchRequest:
    """What a person asks for, on top of a study where one is named: its pipeline, base, space and
    number. variants: None for the study's, or 16. options: the rest of a SearchRequest."""
    if study is not None:
        base = replace(
            base,
            pipeline=study.pipeline,
            overrides=(*study.base.items(), *base.overrides),
            evaluation=base.evaluation or study.evaluation,
            question=study.question,
        )
        space = {**study.dimensions, **space}
        variants = study.sample if variants is None else variants
    number = _VARIANTS if variants is None else variants
    return SearchRequest(base=base, space=space, variants=number, **options)


def _listed(values: Sequence[Any]) -> str:
    return ",".join(map(str, values))


def _check_budgets(budgets: Vary, space: Space) -> None:
    values = budgets.values
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    if not numbers or any(a >= b for a, b in pairwise(values)):
        raise FoundryError(
            f"rungs {budgets.path}={_listed(values)}: budgets are numbers that grow",
            f"e.g. {budgets.path}=100,300,900",
        )
    if budgets.path in space:
        raise FoundryError(
            f"{budgets.path!r} is the rungs' budget and in the space, too", "leave one of them out"
        )


def unplayed(pipeline: Pipeline, evaluation: str) -> tuple[Change, ...]:
    """Overrides by which an evaluation, and the controls beside it, play as many scenarios that
    come after its own. FoundryError for one that has no others."""
    recipe = pipeline.stages[evaluation].recipe.model_dump()
    missing = [name for name in _SCENARIOS if name not in recipe]
    if missing:
        raise FoundryError(
            f"{evaluation!r} ({pipeline.stages[evaluation].kind}) has no {' and no '.join(missing)}"
            ": what is found could only be judged on the scenarios on which it was found",
            "search on another evaluation: --only-evaluations STAGE",
        )
    begin = recipe["first_scenario"] + recipe["episodes_per_task"]
    stages = (evaluation, *controls_of(pipeline, evaluation).values())
    return tuple((f"{stage}.first_scenario", begin) for stage in stages)


@dataclass(kw_only=True)
class Rung:
    """What came out. base: the unchanged pipeline's success. rates: variant → success, None where
    it has none (why: in `dropped`). kept: who goes on, the best first; None before that is decided.
    ablations: one, or one per batch of a driver that learns."""

    number: int
    budget: Any
    base: float | None = None
    rates: dict[str, float | None] = field(default_factory=dict)
    kept: tuple[str, ...] | None = None
    dropped: dict[str, str] = field(default_factory=dict)
    ablations: list[str] = field(default_factory=list)
    episodes: int = 0


@dataclass(kw_only=True)
class Found:
    """A search that is over. verdict: the ablation of the finalists as JSON, None without any."""

    id: str
    title: str
    status: str
    rungs: list[Rung]
    finalists: tuple[str, ...]
    changes: dict[str, dict[str, Any]]
    verdict: Mapping[str, Any] | None
    promise: str
    error: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Search:
    """One execution. `run` asks, plays rung after rung, and has the finalists judged."""

    def __init__(self, request: SearchRequest, told: Told = lambda rungs: None) -> None:
        self.request = request.checked()
        self._told = told
        self._variants: dict[str, Variant] = {}
        self._rungs: list[Rung] = []
        self._planned: Ablation | None = None

    def run(self, carry: Carry) -> Found:
        """Exceptions of `carry` go on: what ran by then is reused by the same search again."""
        request = self.request
        try:
            rung = self._first_rung(carry)
            for number, size in enumerate(request.sizes[1:], 1):
                rung = self._next_rung(number, self._keep(rung, size), carry)
            verdict = self._judged(self._keep(rung, request.finalists), carry)
        except _BaseFailed as error:
            return self._found("failed", None, str(error))
        return self._found(verdict["status"], verdict)

    def _first_rung(self, carry: Carry) -> Rung:
        request = self.request
        driver = DRIVERS.get(request.driver)(request.space, request.variants, request.seed)
        rung = self._new_rung(0)
        left = request.variants
        while left:
            asked = [
                driver.ask() for _ in range(min(left, request.batch if driver.learns else left))
            ]
            left -= len(asked)
            variants = [self._variant(changes) for changes in asked]
            new = [one for one in dict.fromkeys(variants) if one.name not in rung.rates]
            self._play(rung, new, carry)
            for changes, variant in zip(asked, variants, strict=True):
                driver.tell(changes, rung.rates.get(variant.name))
            if left:
                self._told(self._rungs)
        return rung

    def _keep(self, rung: Rung, number: int) -> tuple[str, ...]:
        """Decides who goes on from a rung."""
        rung.kept = kept = best(rung.rates, number)
        self._told(self._rungs)
        return kept

    def _variant(self, changes: tuple[Change, ...]) -> Variant:
        """The one that has these changes, if it was asked for before."""
        known = next((v for v in self._variants.values() if v.overrides == changes), None)
        found = known or called(changes, [Variant(name=BASE), *self._variants.values()])
        self._variants[found.name] = found
        return found

    def _next_rung(self, number: int, names: Sequence[str], carry: Carry) -> Rung:
        rung = self._new_rung(number)
        self._play(rung, [self._variants[name] for name in names], carry)
        return rung

    def _new_rung(self, number: int) -> Rung:
        self._rungs.append(Rung(number=number, budget=self.request.values[number]))
        return self._rungs[-1]

    def _play(self, rung: Rung, variants: Sequence[Variant], carry: Carry) -> None:
        """Adds what comes out to the rung."""
        if not variants:
            return
        try:
            ablation = plan_ablation(self.request.rung(rung.number, variants))
        except NothingVaried:
            for variant in variants:
                rung.rates[variant.name] = None
                rung.dropped[variant.name] = "the same as the base"
            return
        self._planned = self._planned or ablation
        result = carry(ablation, f"rung {rung.number + 1} of {len(self.request.sizes)}")
        rung.ablations.append(result["ablation_id"])
        effects = {row["variant"]: row for row in result["effects"]}
        stopped = (result["sequential"] or {}).get("stopped", {})
        if effects[BASE]["success"] is None:
            raise _BaseFailed(f"rung {rung.number + 1}: {effects[BASE]['decision']}")
        rung.base = effects[BASE]["success"]
        for variant in variants:
            row = effects.get(variant.name)
            if row is None:
                rung.rates[variant.name] = None
                rung.dropped[variant.name] = "the same as another variant"
                continue
            # Whom a look has stopped is worse than somebody who played on.
            rate = None if variant.name in stopped else row["success"]
            rung.rates[variant.name] = rate
            if rate is None:
                rung.dropped[variant.name] = row["decision"]
            rung.episodes += row["n"] or 0

    def _judged(self, names: Sequence[str], carry: Carry) -> Mapping[str, Any]:
        if not names or self._planned is None:
            why = "; ".join(f"{n}: {why}" for n, why in self._rungs[-1].dropped.items())
            raise _BaseFailed(f"no variant is left to be judged: {why}")
        finalists = [self._variants[name] for name in names]
        planned = self._planned
        return carry(
            plan_ablation(self.request.final(finalists, planned.pipeline, planned.evaluation)),
            "finalists",
        )

    def _found(self, status: str, verdict: Mapping[str, Any] | None, error: str = "") -> Found:
        rungs = self._rungs
        return Found(
            id=self.request.id,
            title=self.request.title,
            status=status,
            rungs=rungs,
            finalists=(rungs[-1].kept or ()) if rungs else (),
            changes={name: dict(one.overrides) for name, one in self._variants.items()},
            verdict=verdict,
            promise=promise(self.request),
            error=error,
        )


class _BaseFailed(Exception):
    """Nothing can be compared."""


def promise(request: SearchRequest) -> str:
    """What the search's verdict is worth, in words."""
    seeds, alpha = request.base.seeds, 100 * request.base.alpha
    of = "one finalist" if request.finalists == 1 else f"{request.finalists} finalists"
    unseen = "scenarios that no rung has played"
    unseen += f", {seeds} new trainings each" if seeds > 1 else ""
    return (
        f"The verdict is about {of}, on {unseen}: that an equal one is called different has at "
        f"most {alpha:g} %, however many variants were tried. That the best of the "
        f"{request.variants} is among them is not promised: a rung keeps who did best on its "
        "episodes at its budget (docs/ablations.md has how often that is right in simulations)."
    )


@dataclass(frozen=True, kw_only=True)
class Step:
    """Of a search's plan: a rung, or what judges the finalists (budget of the last). cost: at
    most."""

    name: str
    budget: Any
    variants: int
    seeds: int
    cost: Cost


@dataclass(frozen=True, kw_only=True)
class SearchPlan:
    """first: the first rung's ablation, of the first batch where a driver learns."""

    request: SearchRequest
    first: Ablation
    steps: tuple[Step, ...]

    @property
    def cost(self) -> Cost:
        """The most that it costs: every rung as if its dearest variant were all of them."""
        return total_cost(step.cost for step in self.steps)


def plan_search(request: SearchRequest, gpu_rate: float | None = None) -> SearchPlan:
    """What the first rung does, and the most that all cost. FoundryError for every mistake that can
    be known before a device is touched. Variants that nobody knows yet count as the dearest of
    those that are asked for first."""
    request.checked()
    driver = DRIVERS.get(request.driver)(request.space, request.variants, request.seed)
    count = min(request.batch, request.variants) if driver.learns else request.variants
    variants: dict[str, Variant] = {}
    for changes in dict.fromkeys(driver.ask() for _ in range(count)):
        found = called(changes, [Variant(name=BASE), *variants.values()])
        variants[found.name] = found
    known, steps = list(variants.values()), []
    planned = [plan_ablation(request.rung(n, known)) for n in range(len(request.sizes))]
    for number, (ablation, size) in enumerate(zip(planned, request.sizes, strict=True)):
        steps.append(_step(f"rung {number + 1}", ablation, request.values[number], size, gpu_rate))
    first = planned[0]
    final = plan_ablation(request.final(known, first.pipeline, first.evaluation))
    last = request.values[-1]
    steps.append(_step("finalists", final, last, request.finalists, gpu_rate))
    return SearchPlan(request=request, first=first, steps=tuple(steps))


def _step(name: str, ablation: Ablation, budget: Any, size: int, gpu_rate: float | None) -> Step:
    return Step(
        name=name,
        budget=budget,
        variants=size,
        seeds=ablation.request.seeds,
        cost=_at_most(ablation, size, gpu_rate),
    )


def _at_most(ablation: Ablation, size: int, gpu_rate: float | None) -> Cost:
    """Of the base and so many variants, each as dear as the dearest."""
    plan, resources = ablation.merged.plan, resources_of(ablation.merged.pipeline)
    variants = dict(ablation.by_variant)
    bases = {name for r in variants.pop(BASE) for name in r.names.values()}
    to_run = {row.name: row for row in plan.to_run()}
    of_base = [row for name, row in to_run.items() if name in bases or name == VERDICT]
    alone = [
        [
            to_run[name]
            for name in dict.fromkeys(r.names[stage] for r in seed_runs for stage in r.scope)
            if name in to_run and name not in bases
        ]
        for seed_runs in variants.values()
    ]
    dearest = max(alone, key=lambda rows: cost_of(rows, resources).seconds)
    return cost_of([*of_base, *(row for row in dearest * size)], resources, gpu_rate)
