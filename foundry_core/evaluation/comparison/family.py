"""One table of a comparison: a family of pairs over some tasks, from which its p-values, words and
letters all follow.
"""

from collections.abc import Mapping, Sequence
from statistics import fmean

from foundry_core.evaluation.comparison.arms import Arm, Pairing, balanced_rate, compared_tasks
from foundry_core.evaluation.comparison.pairs import PairTest, Setting, pair_test
from foundry_core.evaluation.comparison.result import Difference, Overall, TaskTable, rank
from foundry_core.evaluation.statistics.families import compact_letters, holm

Pairings = Mapping[tuple[str, str], Pairing]


def family_table(
    arms: Mapping[str, Arm], pairings: Pairings, asked: Sequence[str], alpha: float, size: int
) -> TaskTable:
    """arms: label → arm, in the order of the table. pairings: (held against, tested) → the pairs of
    the family. asked: tasks that all arms list; compared are those in which all have outcomes.
    size: of the family as it was started; who dropped out counts with p = 1."""
    tasks, _ = compared_tasks(arms, asked)
    level = alpha / max(1, size)
    setting = Setting(tasks=tasks, asked=asked, arms=list(arms.values()), alpha=alpha, level=level)
    tests = {pair: pair_test(pairing, setting) for pair, pairing in pairings.items()}
    return table_of(arms, tests, asked, alpha, size)


def table_of(
    arms: Mapping[str, Arm],
    tests: Mapping[tuple[str, str], PairTest],
    asked: Sequence[str],
    alpha: float,
    size: int,
) -> TaskTable:
    """From what was found of each pair, (held against, tested)."""
    tasks, _ = compared_tasks(arms, asked)
    overall = {label: _overall(arm, tasks or asked) for label, arm in arms.items()}
    differences = _differences(tests, alpha, size)
    separated = [(one.base, one.variant) for one in differences if one.separated]
    silent = {
        label: [task for task in asked if not arm.speaks(task)] for label, arm in arms.items()
    }
    return TaskTable(
        tasks=tasks,
        size=size,
        overall=overall,
        differences=differences,
        letters=compact_letters(rank(overall), separated),
        silent={label: without for label, without in silent.items() if without},
    )


def _overall(arm: Arm, tasks: Sequence[str]) -> Overall:
    rates = arm.rates(tasks)
    return Overall(
        counted=arm.counted(tasks),
        rate=fmean(rates) if rates else None,
        rate_with_crashes=arm.rate_with_crashes(tasks),
        seeds={name: balanced_rate(one, tasks) for name, one in arm.named.items()},
    )


def _differences(
    tests: Mapping[tuple[str, str], PairTest], alpha: float, size: int
) -> list[Difference]:
    """Holm twice: without the crashes, and with them counted against the better arm. What only the
    first separates has no verdict."""
    dropped = [1.0] * (size - len(tests))
    plain = [1.0 if test.p is None else test.p for test in tests.values()]
    bounded = [
        p if test.p_crashes is None else test.p_crashes
        for p, test in zip(plain, tests.values(), strict=True)
    ]
    found = zip(tests.items(), holm([*plain, *dropped]), holm([*bounded, *dropped]), strict=False)
    return [
        _difference(pair, test, without, against, alpha) for (pair, test), without, against in found
    ]


def _difference(
    pair: tuple[str, str], test: PairTest, without: float, against: float, alpha: float
) -> Difference:
    """without, against: corrected p with the crashes left out, and counted against the better."""
    known = test.p is not None
    separated, turned = known and against <= alpha, known and without <= alpha < against
    p, corrected, note = test.p, without, test.note
    if separated and test.p_crashes is not None:
        p, corrected = test.p_crashes, against
        note = f"{test.crashes}; counted against the better arm, they leave the verdict"
    if turned:
        note = (
            f"{test.crashes}: counted against the better arm, they turn the verdict"
            if test.crashes
            else "the crashes of other pairs, counted against the better arm, leave it uncertain"
        )
    base, variant = pair
    return Difference(
        variant=variant,
        base=base,
        difference=test.difference,
        low=test.low,
        high=test.high,
        decision="no verdict" if turned else _decision(test, separated),
        basis=test.basis,
        test=test.test,
        p_value=None if turned else p,
        p_corrected=corrected if known and not turned else None,
        p_episodes=test.p_episodes,
        p_seeds=test.p_seeds,
        pairs=test.pairs,
        discordant=test.discordant,
        unpaired=test.unpaired,
        detectable=None if separated or turned else test.detectable,
        turned=turned,
        note=note,
    )


def _decision(test: PairTest, separated: bool) -> str:
    if test.direction:
        return "better" if test.direction > 0 else "worse"
    if test.ended:
        return "not separated"
    if test.p is None:
        return "undecided" if test.test in ("exact walk", "e-value") else "no verdict"
    if not separated:
        return "not separated"
    return "better" if (test.difference or 0.0) > 0 else "worse"
