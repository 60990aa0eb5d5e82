"""One arm against another: which test applies, what it finds, what it could not have seen.

An arm is one policy, or the policies of one recipe's seeds. `verdicts` of the documentation says
why each rule is as it is.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from foundry_core.evaluation.comparison.arms import LEFT_OUT, Arm, Crashes, Pairing, as_counted
from foundry_core.evaluation.statistics.block_test import BlockTest
from foundry_core.evaluation.statistics.detectable import (
    difference_by_deviation,
    paired_difference,
    pooled_factor,
    welch_factor,
)
from foundry_core.evaluation.statistics.recipes import Basis, seed_test
from foundry_core.evaluation.statistics.walk import Look, WalkDesign, WalkResult, walk

_Z95 = 1.959964


@dataclass(frozen=True, kw_only=True)
class PairTest:
    """difference: mean over tasks of A's rate less B's, with an approximate 95 % interval; None
    where one has no outcome.

    basis: what the p-value speaks of: these two trained policies, or the recipes; provisional with
    two seeds. test: the name of the test. p: uncorrected; None where a sequential design decides,
    and where no test applies. direction: of a sequential decision, 1, -1 or 0; ended: whether its
    last look left it at 0.
    p_crashes: p with the crashes counted against the better arm, where that could turn a verdict;
    at least p. p_episodes, p_seeds: the parts whose larger one p is. detectable: the smallest true
    difference that this much data separates with 80 % power at the pair's level. note: what a
    reader must know; crashes: the arms' shares, in words.
    """

    difference: float | None
    low: float | None
    high: float | None
    basis: Basis
    test: str
    p: float | None
    direction: int = 0
    ended: bool = False
    p_crashes: float | None = None
    p_episodes: float | None = None
    p_seeds: float | None = None
    pairs: int = 0
    discordant: int = 0
    unpaired: int = 0
    detectable: float | None = None
    note: str = ""
    crashes: str = ""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What the pairs of a table share. tasks: compared. asked: those and the ones that an arm has
    no outcome in, which a sequential design was made for. arms: all of the table, whose scatter two
    seeds borrow. alpha: of the table; level: of a pair, after Bonferroni."""

    tasks: Sequence[str]
    asked: Sequence[str]
    arms: Sequence[Arm]
    alpha: float
    level: float


def pair_test(pairing: Pairing, setting: Setting) -> PairTest:
    """A against B by the table's setting."""
    a, b, tasks = pairing.a, pairing.b, setting.tasks
    mute = [arm.name for arm in (a, b) if not tasks or not any(map(arm.speaks, tasks))]
    if mute:
        note = f"{' and '.join(mute)} {'has' if len(mute) == 1 else 'have'} no outcome here"
        return PairTest(
            difference=None, low=None, high=None, basis="none", test="none", p=None, note=note
        )
    found = pairing.test(tasks)
    if a.pending(setting.asked) or b.pending(setting.asked):
        return _unfinished(a, b, setting, found)
    p, name = _episodes(a, b, tasks, found)
    result = PairTest(
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
    )
    if max(len(a.evaluations), len(b.evaluations)) > 1:
        result = _recipes(a, b, setting, found, result)
    elif p > setting.level:
        result = replace(result, detectable=_detectable(found, setting.level))
    return _with_crashes(pairing, setting, result)


def _episodes(a: Arm, b: Arm, tasks: Sequence[str], found: BlockTest) -> tuple[float, str]:
    """Barnard's test where nothing pairs and there is one task: it has more power there."""
    if found.pairs or len(found.tasks) > 1 or max(len(a.evaluations), len(b.evaluations)) > 1:
        return found.p, "exact block test"
    # Takes half a second to import, and is seldom needed.
    from foundry_core.evaluation.statistics.fixed import Arms, barnard

    one, other = a.counted(tasks), b.counted(tasks)
    arms = Arms(s1=one.successes, n1=one.n, s0=other.successes, n0=other.n)
    return barnard(arms), "Barnard, unpaired"


def _with_crashes(pairing: Pairing, setting: Setting, result: PairTest) -> PairTest:
    """Where crashes differ between the arms, a separation must survive their being counted against
    the better arm and for the other."""
    a, b, tasks = pairing.a, pairing.b, setting.tasks
    if a.crash_share(tasks) == b.crash_share(tasks):
        return result
    if result.p is None or result.p > setting.alpha:
        return result
    ahead = (result.difference or 0.0) > 0
    bounded = pairing.test(tasks, (not ahead, ahead))
    kept = bounded.difference > 0 if ahead else bounded.difference < 0
    return replace(
        result,
        p_crashes=max(result.p, bounded.p) if kept else 1.0,
        crashes=_crash_shares(a, b, tasks),
    )


def _crash_shares(a: Arm, b: Arm, tasks: Sequence[str]) -> str:
    shares = [f"{100 * arm.crash_share(tasks):.1f} % of {arm.name}" for arm in (a, b)]
    return f"{' and '.join(shares)} crashed"


def _recipes(a: Arm, b: Arm, setting: Setting, found: BlockTest, episodes: PairTest) -> PairTest:
    rates = {arm.name: arm.rates(setting.tasks) for arm in setting.arms}
    seeds = seed_test(rates[a.name], rates[b.name], rates)
    width = max(seeds.half_width() or 0.0, _Z95 * found.deviation)
    name = episodes.test
    return replace(
        episodes,
        low=max(-1.0, found.difference - width),
        high=min(1.0, found.difference + width),
        basis=seeds.basis,
        test=name if seeds.p is None else f"{name} and {_SEED_TESTS[seeds.basis]}",
        p=found.p if seeds.p is None else max(found.p, seeds.p),
        p_seeds=seeds.p,
        detectable=_detectable_recipe(rates, a.name, b.name, found, setting.level),
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


def _unfinished(a: Arm, b: Arm, setting: Setting, found: BlockTest) -> PairTest:
    """Judged by its sequential design, a look after every complete round, or not at all."""
    result = _walk(a, b, setting)
    note = f"{a.pending(setting.asked)} and {b.pending(setting.asked)} episodes are pending"
    if result and result.direction:
        result, crashed = _walk_with_crashes(a, b, setting, result)
        note += crashed
    if result is None:
        note += ": only complete rounds of shared scenarios may be judged before the end"
    elif result.direction:
        note += f": decided after {result.rounds} rounds"
    else:
        note += f": not decided after {result.rounds} rounds, go on"
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


def _walk_with_crashes(
    a: Arm, b: Arm, setting: Setting, found: WalkResult
) -> tuple[WalkResult, str]:
    """As `_with_crashes`: what remains of a decision where crashes differ between the arms."""
    if a.crash_share(setting.asked) == b.crash_share(setting.asked):
        return found, ""
    against = (False, True) if found.direction > 0 else (True, False)
    bounded = _walk(a, b, setting, against) or found
    text = f"; {_crash_shares(a, b, setting.asked)}; counted against the better arm, they"
    if bounded.direction == found.direction:
        return bounded, f"{text} leave the verdict"
    return replace(bounded, direction=0), f"{text} turn the verdict"


def _walk(a: Arm, b: Arm, setting: Setting, crashes: Crashes = LEFT_OUT) -> WalkResult | None:
    """The walk over the rounds that both arms have completed; None for several seeds, and where no
    round is complete."""
    if max(len(a.evaluations), len(b.evaluations)) > 1:
        return None
    budget = min(a.evaluations[0].budget, b.evaluations[0].budget)
    looks = complete_rounds(a, b, setting.asked, crashes)
    return walk(WalkDesign(rounds=budget, alpha=setting.level), looks) if looks else None


def complete_rounds(
    a: Arm, b: Arm, tasks: Sequence[str], crashes: Crashes = LEFT_OUT
) -> list[Look]:
    """A look after every round, one scenario of every task in the order of the scenarios, that both
    arms, of one seed each, have completed. crashes: what they count as in either arm; None: the
    episode is done and has no partner, so its pair is not discordant."""
    one, other = a.evaluations[0].outcomes, b.evaluations[0].outcomes
    orders = [sorted(one[task].keys() | other[task].keys()) for task in tasks]
    looks: list[Look] = []
    wins = losses = 0
    for number, scenarios in enumerate(zip(*orders, strict=False), 1):
        places = list(zip(tasks, scenarios, strict=True))
        if any(at not in one[task] or at not in other[task] for task, at in places):
            break
        pairs = [
            (as_counted(one[task][at], crashes[0]), as_counted(other[task][at], crashes[1]))
            for task, at in places
        ]
        wins += pairs.count((True, False))
        losses += pairs.count((False, True))
        looks.append(Look(rounds=number, wins=wins, losses=losses))
    return looks
