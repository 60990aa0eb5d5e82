"""One arm against another: which test applies, what it finds, what it could not have seen.

An arm is one policy, or the policies of one recipe's seeds. Its outcomes lie by task and scenario,
one per seed. `verdicts` of the documentation says why each rule is as it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from foundry_core.evaluation.score import Evaluation
from foundry_core.evaluation.statistics.block_test import BlockTest, Outcomes, block_test
from foundry_core.evaluation.statistics.detectable import (
    difference_by_deviation,
    paired_difference,
    pooled_factor,
    welch_factor,
)
from foundry_core.evaluation.statistics.fixed import Arms, barnard
from foundry_core.evaluation.statistics.recipes import Basis, seed_test
from foundry_core.evaluation.statistics.walk import Look, WalkDesign, WalkResult, walk

_Z95 = 1.959964


def balanced_rate(evaluation: Evaluation, tasks: Sequence[str]) -> float | None:
    """The mean of the tasks' success rates; None where one has no outcome."""
    rates = [evaluation.scores[task].rate for task in tasks]
    known = [rate for rate in rates if rate is not None]
    return fmean(known) if len(known) == len(rates) else None


@dataclass(frozen=True)
class Arm:
    """evaluations: one per seed, over the same tasks and scenarios."""

    name: str
    evaluations: Sequence[Evaluation]

    def outcomes(self, tasks: Sequence[str], crash: bool | None = None) -> Outcomes:
        """task → scenario → outcomes. crash: what a crashed episode counts as; None: as nothing."""
        found: dict[str, dict[int, list[bool]]] = {}
        for task in tasks:
            by_scenario: dict[int, list[bool]] = {}
            for evaluation in self.evaluations:
                for scenario, success in evaluation.outcomes[task].items():
                    outcome = crash if success is None else success
                    if outcome is not None:
                        by_scenario.setdefault(scenario, []).append(outcome)
            found[task] = by_scenario
        return found

    def rates(self, tasks: Sequence[str]) -> tuple[float, ...]:
        """One per seed; seeds without an outcome in every task are left out."""
        rates = (balanced_rate(evaluation, tasks) for evaluation in self.evaluations)
        return tuple(rate for rate in rates if rate is not None)

    def crash_share(self, tasks: Sequence[str]) -> float:
        scores = [evaluation.scores[task] for evaluation in self.evaluations for task in tasks]
        done = sum(score.n + score.crashed for score in scores)
        return sum(score.crashed for score in scores) / done if done else 0.0

    def pending(self, tasks: Sequence[str]) -> int:
        return sum(e.scores[task].pending for e in self.evaluations for task in tasks)


@dataclass(frozen=True, kw_only=True)
class PairTest:
    """difference: mean over tasks of A's rate less B's, with an approximate 95 % interval.

    basis: what the p-value speaks of: these two trained policies, or the recipes; provisional with
    two seeds. test: the name of the test. p: uncorrected; None where a sequential design decides,
    and where no test applies. direction: of a sequential decision, 1, -1 or 0; ended: whether its
    last look left it at 0.
    p_episodes, p_seeds: the parts whose larger one p is. detectable: the smallest true difference
    that this much data separates with 80 % power at `alpha`. note: what a reader must know.
    """

    difference: float
    low: float
    high: float
    basis: Basis
    test: str
    p: float | None
    direction: int = 0
    ended: bool = False
    p_episodes: float | None = None
    p_seeds: float | None = None
    pairs: int = 0
    discordant: int = 0
    unpaired: int = 0
    detectable: float | None = None
    note: str = ""


def pair_test(a: Arm, b: Arm, tasks: Sequence[str], table: Sequence[Arm], level: float) -> PairTest:
    """A against B over the tasks that both ran. table: all arms of the comparison, whose scatter
    two seeds borrow. level: of this pair, after correction, for what could have been seen and for
    sequential designs."""
    found = block_test(a.outcomes(tasks), b.outcomes(tasks))
    if a.pending(tasks) or b.pending(tasks):
        return _unfinished(a, b, tasks, found, level)
    raw, name = _episodes(a, b, tasks, found)
    p, note = _with_crashes(a, b, tasks, raw, found, level)
    several = max(len(a.evaluations), len(b.evaluations)) > 1
    if several and p is not None:
        return _recipes(a, b, tasks, table, found, p, name, note, level)
    return PairTest(
        difference=found.difference,
        low=found.low,
        high=found.high,
        basis="none",
        test=name,
        p=p,
        p_episodes=p,
        pairs=found.pairs,
        discordant=found.discordant,
        unpaired=found.unpaired,
        detectable=_detectable(found, level),
        note=note,
    )


def _episodes(a: Arm, b: Arm, tasks: Sequence[str], found: BlockTest) -> tuple[float, str]:
    """Barnard's test where nothing pairs and there is one task: it has more power there."""
    if found.pairs or len(found.tasks) > 1 or max(len(a.evaluations), len(b.evaluations)) > 1:
        return found.p, "exact block test"
    one, other = a.evaluations[0].scores[tasks[0]], b.evaluations[0].scores[tasks[0]]
    arms = Arms(s1=one.successes, n1=one.n, s0=other.successes, n0=other.n)
    return barnard(arms), "Barnard, unpaired"


def _with_crashes(
    a: Arm, b: Arm, tasks: Sequence[str], p: float, found: BlockTest, level: float
) -> tuple[float | None, str]:
    """Where crashes differ between the arms, the verdict must survive their being counted against
    the better arm and for the other; if it does not, there is none."""
    shares = a.crash_share(tasks), b.crash_share(tasks)
    if shares[0] == shares[1] or p > level:
        return p, ""
    better, worse = (a, b) if found.difference > 0 else (b, a)
    bounded = block_test(better.outcomes(tasks, crash=False), worse.outcomes(tasks, crash=True))
    text = f"{100 * shares[0]:.1f} % of {a.name} and {100 * shares[1]:.1f} % of {b.name} crashed"
    if bounded.p > level or bounded.difference <= 0:
        return None, f"{text}: counted against the better arm, they turn the verdict"
    return max(p, bounded.p), f"{text}; counted against the better arm, they leave the verdict"


def _recipes(
    a: Arm,
    b: Arm,
    tasks: Sequence[str],
    table: Sequence[Arm],
    found: BlockTest,
    p: float,
    name: str,
    note: str,
    level: float,
) -> PairTest:
    rates = {arm.name: arm.rates(tasks) for arm in table}
    seeds = seed_test(rates[a.name], rates[b.name], rates)
    width = max(seeds.half_width() or 0.0, _Z95 * found.deviation)
    return PairTest(
        difference=found.difference,
        low=max(-1.0, found.difference - width),
        high=min(1.0, found.difference + width),
        basis=seeds.basis,
        test=name if seeds.p is None else f"{name} and {_SEED_TESTS[seeds.basis]}",
        p=p if seeds.p is None else max(p, seeds.p),
        p_episodes=p,
        p_seeds=seeds.p,
        pairs=found.pairs,
        discordant=found.discordant,
        unpaired=found.unpaired,
        detectable=_detectable_recipe(rates, a.name, b.name, found, level),
        note=note,
    )


_SEED_TESTS = {"provisional": "pooled t over seeds", "recipe": "Welch's t over seeds"}


def _detectable(found: BlockTest, level: float) -> float | None:
    if found.pairs and not found.unpaired and len(found.tasks) == 1:
        return paired_difference(found.pairs, found.discordant / found.pairs, level)
    return difference_by_deviation(found.null_deviation, level) or None


def _detectable_recipe(
    rates: Mapping[str, Sequence[float]], a: str, b: str, found: BlockTest, level: float
) -> float | None:
    episodes = _detectable(found, level)
    groups = [group for group in rates.values() if len(group) > 1]
    fewest = min(len(rates[a]), len(rates[b]))
    if fewest < 2 or episodes is None:
        return episodes
    degrees = sum(len(group) - 1 for group in groups)
    squares = sum(sum((rate - fmean(group)) ** 2 for rate in group) for group in groups)
    factor = (
        welch_factor(fewest, level)
        if fewest > 2
        else pooled_factor(len(rates[a]), len(rates[b]), degrees, level)
    )
    return max(episodes, factor * (squares / degrees) ** 0.5)


def _unfinished(a: Arm, b: Arm, tasks: Sequence[str], found: BlockTest, level: float) -> PairTest:
    """Judged by its sequential design, a look after every complete round, or not at all."""
    result = _walk(a, b, tasks, level)
    left = f"{a.pending(tasks)} and {b.pending(tasks)} episodes are pending"
    if result is None:
        note = f"{left}: only complete rounds of shared scenarios may be judged before the end"
    elif result.direction:
        note = f"{left}: decided after {result.rounds} rounds"
    else:
        note = f"{left}: not decided after {result.rounds} rounds, go on"
    return PairTest(
        difference=found.difference,
        low=found.low,
        high=found.high,
        basis="none",
        test="exact walk" if result else "none: unfinished",
        p=None,
        direction=result.direction if result else 0,
        pairs=found.pairs,
        discordant=found.discordant,
        unpaired=found.unpaired,
        note=note,
    )


def _walk(a: Arm, b: Arm, tasks: Sequence[str], level: float) -> WalkResult | None:
    """The walk over the rounds, one scenario of every task in the order of the scenarios, that
    both arms have completed; None for several seeds, and where no round is complete."""
    if max(len(a.evaluations), len(b.evaluations)) > 1:
        return None
    one, other = a.evaluations[0], b.evaluations[0]
    budget = min(one.budget, other.budget)
    looks = complete_rounds(one.outcomes, other.outcomes, tasks)
    return walk(WalkDesign(rounds=budget, alpha=level), looks) if looks else None


Known = Mapping[str, Mapping[int, bool | None]]


def complete_rounds(one: Known, other: Known, tasks: Sequence[str]) -> list[Look]:
    """A look after every round that both have completed: one scenario of every task, in the order
    of the scenarios. A crashed episode has no partner: its pair is not discordant."""
    orders = [sorted(one[task].keys() | other[task].keys()) for task in tasks]
    looks: list[Look] = []
    wins = losses = 0
    for number, scenarios in enumerate(zip(*orders, strict=False), 1):
        round_ = [
            (one[task].get(scenario, _ABSENT), other[task].get(scenario, _ABSENT))
            for task, scenario in zip(tasks, scenarios, strict=True)
        ]
        if any(_ABSENT in pair for pair in round_):
            break
        wins += sum(x is True and y is False for x, y in round_)
        losses += sum(x is False and y is True for x, y in round_)
        looks.append(Look(rounds=number, wins=wins, losses=losses))
    return looks


_ABSENT = "absent"
