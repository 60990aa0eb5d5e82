"""What a plan costs before anything runs: seconds, GPU hours and money, by stage and in all.

A stage's seconds are those of the last time something like it was built, told for how much there is
to do now (`Stage.work`): by its own key, by the run that the plan is explained against, by attempts
of its kind in this home. Where these say too little (attempts.py), its kind may know by arithmetic
(`Stage.expected_seconds`). What remains is not known, and said so.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

from foundry_core.config.validation import validate
from foundry_core.errors import FoundryError
from foundry_core.pipeline.attempts import (
    STARTUP_SECONDS,
    Attempt,
    Attempts,
    of_stage,
    remember,
    told,
)
from foundry_core.pipeline.graph import Pipeline, StageNode
from foundry_core.pipeline.imports import Imported
from foundry_core.pipeline.reasons import BaselineStage
from foundry_core.pipeline.spec import StageSpec
from foundry_core.pipeline.stage import Resources, Upstream, Work
from foundry_core.pipeline.trunks import Continues

# past: it, or its counterpart, was built before. rate: things of its kind were. size: arithmetic.
Basis = Literal["past", "rate", "size"]
Inputs = Mapping[str, Mapping[str, Upstream]]


class PastBuild(Protocol):
    """A committed artifact as the plan's catalog tells of it."""

    @property
    def seconds(self) -> float: ...

    @property
    def continued_from(self) -> int | None: ...


class PastBuilds(Protocol):
    """As much of the store as is asked here; `plan.Catalog` is the whole."""

    def status(self, kind: str, key: str) -> tuple[str, str, Any]: ...


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """How long a stage will take, and how that is known."""

    seconds: float
    by: Basis


def estimate(
    spec: StageSpec,
    node: StageNode,
    inputs: Inputs,
    old: BaselineStage | None,
    catalog: PastBuilds,
    continues: Continues | None,
    attempts: Attempts,
) -> Estimate | None:
    """Of a stage that runs; None where too little is known. old: its counterpart in the run that
    the plan is explained against. continues: what it goes on from. attempts: those known here."""
    if issubclass(node.stage, Imported):
        return None
    work = _left(node.stage.work(node.recipe, inputs), continues.step if continues else None)
    before = _before(spec, node, inputs, old, catalog)
    if before is not None and (seconds := _by_past(before, node, work, attempts)) is not None:
        return Estimate(seconds=seconds, by="past")
    known = _attempts(node, work, attempts)
    if before is None and work is not None and (seconds := told(known, work)) is not None:
        return Estimate(seconds=seconds, by="rate")
    expected = node.stage.expected_seconds(node.recipe, node.resources, inputs)
    if expected is None:
        return None
    share = 1.0 if continues is None else 1 - continues.step / continues.total
    # What less of it took was start for the most part.
    less = [one.seconds for one in known if work is not None and one.amount <= work.amount]
    start = max([STARTUP_SECONDS, *less])
    return Estimate(seconds=start + expected * share, by="size")


@dataclass(frozen=True, kw_only=True)
class _Before:
    """A past build, and how much of its work it did itself."""

    seconds: float
    work: Work | None


def _before(
    spec: StageSpec,
    node: StageNode,
    inputs: Inputs,
    old: BaselineStage | None,
    catalog: PastBuilds,
) -> _Before | None:
    """The artifact under its own key, else that of its counterpart."""
    found: PastBuild | None
    for key in dict.fromkeys([spec.key, *([old.key] if old else [])]):
        _, _, found = catalog.status(spec.kind, key)
        if found is not None:
            recipe = spec.recipe_json if old is None or key == spec.key else old.recipe
            then = _left(_work_of(node, recipe, inputs), found.continued_from)
            return _Before(seconds=found.seconds, work=then)
    return None


def _by_past(
    before: _Before, node: StageNode, work: Work | None, attempts: Attempts
) -> float | None:
    """From the build before, with what attempts at the stage say of its start."""
    then = before.work
    if work is None or then is None or then.unit != work.unit or then.amount <= 0:
        return before.seconds
    known = _attempts(node, work, attempts)
    others = [one for one in known if one.amount != then.amount]
    return told([*others, Attempt(then.amount, before.seconds, _gpus(node))], work)


def _attempts(node: StageNode, work: Work | None, attempts: Attempts) -> list[Attempt]:
    """In the unit of this work."""
    if work is None:
        return []
    return of_stage(attempts, node.kind, work.unit, plain_name(node.name), _gpus(node))


def _gpus(node: StageNode) -> int:
    """That all its workers ask for."""
    return int(node.resources.gpus)


def plain_name(name: str) -> str:
    """A stage's own name: an ablation calls it `base/0:vla`."""
    return name.rpartition(":")[2]


def _left(work: Work | None, step: int | None) -> Work | None:
    """What of it remains after a step that another budget's run has done."""
    return work.after(step) if work is not None and step else work


def _work_of(node: StageNode, recipe: Mapping[str, Any], inputs: Inputs) -> Work | None:
    """Of a recipe of the past, on the inputs as they are now."""
    try:
        return node.stage.work(validate(node.stage.Recipe, recipe, node.name), inputs)
    except FoundryError:  # an earlier version wrote it
        return None


def learn(node: StageNode, inputs: Inputs, seconds: float, continued_from: int | None) -> None:
    """Remembers how long an attempt took that has just come through, for plans to come."""
    work = None if issubclass(node.stage, Imported) else node.stage.work(node.recipe, inputs)
    work = _left(work, continued_from)
    if work is None or work.amount <= 0:
        return
    attempt = Attempt(work.amount, seconds, _gpus(node))
    remember(node.kind, work.unit, plain_name(node.name), attempt)


class CostRow(Protocol):
    """A stage of a plan, as much of it as costs."""

    @property
    def name(self) -> str: ...

    @property
    def estimated_seconds(self) -> float | None: ...


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of stages that run, one after the other. unknown: those without an estimate, which are not
    in the sums; unknown_gpu: those of them that ask for GPUs. gpu_rate: money for a GPU hour."""

    stages: int = 0
    seconds: float = 0.0
    gpu_hours: float = 0.0
    unknown: tuple[str, ...] = ()
    unknown_gpu: tuple[str, ...] = ()
    gpu_rate: float | None = None

    @property
    def money(self) -> float | None:
        """In whatever the rate is in."""
        return None if self.gpu_rate is None else self.gpu_rate * self.gpu_hours

    def sentence(self) -> str:
        """'about 12 min of work, 3.2 GPU hours, 8.00 at 2.5 a GPU hour'. Where stages have no
        estimate that the time is not known comes first, and the sum is said of the others."""
        missing = len(self.unknown)
        if missing == self.stages:
            return "how long it takes is not known: too little like it ran here before"
        said = [f"about {duration(self.seconds)} of work"]
        if self.gpu_hours:
            said.append(f"{number(self.gpu_hours)} GPU hours")
        if self.money is not None:
            said.append(f"{self.money:,.2f} at {self.gpu_rate:g} a GPU hour")
        known = ", ".join(said)
        if not missing:
            return known
        names = list(dict.fromkeys(map(plain_name, self.unknown)))
        of = f"{missing} of {self.stages} stages ({_some(names)})"
        return f"time not known yet: too little is known of {of}; the others: {known}"

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"money": self.money}


def cost_of(
    rows: Iterable[CostRow], resources: Mapping[str, Resources], gpu_rate: float | None = None
) -> Cost:
    """What these stages, which run, cost together. resources: of each by its name."""
    seconds = gpu_hours = 0.0
    unknown: list[str] = []
    count = 0
    for row in rows:
        count += 1
        if row.estimated_seconds is None:
            unknown.append(row.name)
            continue
        seconds += row.estimated_seconds
        gpu_hours += row.estimated_seconds * resources[row.name].gpus / 3600
    return Cost(
        stages=count,
        seconds=seconds,
        gpu_hours=gpu_hours,
        unknown=tuple(unknown),
        unknown_gpu=tuple(name for name in unknown if resources[name].gpus),
        gpu_rate=gpu_rate,
    )


def total_cost(costs: Iterable[Cost]) -> Cost:
    """Of several plans, one after the other."""
    every = list(costs)
    return Cost(
        stages=sum(cost.stages for cost in every),
        seconds=sum(cost.seconds for cost in every),
        gpu_hours=sum(cost.gpu_hours for cost in every),
        unknown=tuple(name for cost in every for name in cost.unknown),
        unknown_gpu=tuple(name for cost in every for name in cost.unknown_gpu),
        gpu_rate=every[0].gpu_rate if every else None,
    )


def resources_of(pipeline: Pipeline) -> dict[str, Resources]:
    """Of every stage."""
    return {name: node.resources for name, node in pipeline.stages.items()}


def stated_rate(asked: float | None = None) -> float | None:
    """Money for a GPU hour: what is asked for, else FOUNDRY_GPU_RATE; None where neither says.
    FoundryError for what is no rate."""
    stated = os.environ.get("FOUNDRY_GPU_RATE") or None
    try:
        rate = asked if asked is not None else stated and float(stated)
    except ValueError:
        rate = -1.0
    if rate is None or 0 <= rate < float("inf"):
        return rate
    where = f"FOUNDRY_GPU_RATE = {stated}" if asked is None else f"--gpu-rate = {asked}"
    raise FoundryError(f"{where}: money for a GPU hour is a number ≥ 0", "e.g. 2.5")


def check_affordable(cost: Cost, most_gpu_hours: float | None) -> None:
    """FoundryError for a plan of more GPU hours, or of which nobody can say how many."""
    if most_gpu_hours is None:
        return
    if cost.gpu_hours > most_gpu_hours:
        raise FoundryError(
            f"the plan takes about {number(cost.gpu_hours)} GPU hours, more than the "
            f"{most_gpu_hours:g} that are allowed",
            "smaller budgets, fewer variants or seeds, or a larger --max-gpu-hours",
        )
    if cost.unknown_gpu:
        names = list(dict.fromkeys(map(plain_name, cost.unknown_gpu)))
        raise FoundryError(
            f"how many GPU hours {_some(names)} takes is not known, so nobody can say whether "
            f"{most_gpu_hours:g} are enough",
            "run one of them first with a small budget, or leave out --max-gpu-hours",
        )


def _some(names: list[str], shown: int = 5) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def duration(seconds: float) -> str:
    """'45 s', '12 min', '3.2 h', '4.1 days'."""
    if seconds < 120:
        return f"{max(seconds, 1):.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172800 else f"{seconds / 86400:,.1f} days"


def number(value: float) -> str:
    """Two digits at least: 0.034, 3.2, 1,240."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"
