"""Policies and recipes side by side: one engine for `compare`, `verdict` and `eval compare`.

One table is one family: the pairs that are tested are fixed before anything is looked at (every
label against the base, or all pairs), their p-values are corrected together by Holm, and words and
letters follow from those. Which test a pair gets is the business of `pairs`.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from math import sqrt
from statistics import fmean

from foundry_core.errors import FoundryError
from foundry_core.evaluation.comparison.by_design import (
    check_design,
    common_design,
    design_test,
    sequential,
)
from foundry_core.evaluation.comparison.pairs import Arm, PairTest, balanced_rate, pair_test
from foundry_core.evaluation.comparison.result import Comparison, Difference, Overall
from foundry_core.evaluation.design import Design, Family
from foundry_core.evaluation.score import Evaluation, Score, total
from foundry_core.evaluation.statistics.block_test import block_test
from foundry_core.evaluation.statistics.families import compact_letters, holm
from foundry_core.evaluation.statistics.walk import WalkDesign

Variants = Mapping[str, Mapping[str, Evaluation]]


def compare(
    evaluations: Mapping[str, Evaluation], base: str | None = None, alpha: float = 0.05
) -> Comparison:
    """label → evaluation of one policy. With a base every other label is held against it; without
    one all pairs are compared."""
    return judge({label: {label: one} for label, one in evaluations.items()}, base, alpha)


def judge(
    variants: Variants,
    base: str | None = None,
    alpha: float = 0.05,
    *,
    size: int | None = None,
) -> Comparison:
    """variants: label → its evaluations by name, one per seed. size: of the family as it was
    started, where variants have dropped out since: they count with p = 1. With a design, size is
    of the comparisons with the base.

    FoundryError where the base is unknown, a variant has no evaluation, no task is common, or
    evaluations state other designs.
    """
    _check(variants, base)
    order = list(variants) if base is None else [base, *(x for x in variants if x != base)]
    arms = {label: Arm(label, list(variants[label].values())) for label in order}
    tasks = common_tasks(arms)
    registered = common_design(arms)
    if registered:
        return _by_design(variants, arms, tasks, base, alpha, size, *registered)
    family: Family = "pairs" if base is None else "base"
    pairs = _pairs(order, family)
    count = max(size or 0, len(pairs))
    tests = {
        pair: pair_test(
            arms[pair[1]], arms[pair[0]], tasks, list(arms.values()), alpha / max(1, count)
        )
        for pair in pairs
    }
    found = _table(variants, arms, tasks, base, alpha, family, count, tests)
    return replace(found, by_task=_by_task(arms, tasks, base)) if base is not None else found


def _by_design(
    variants: Variants,
    arms: Mapping[str, Arm],
    tasks: list[str],
    base: str | None,
    alpha: float,
    size: int | None,
    design: Design,
    rounds: int,
) -> Comparison:
    """Nothing per task: its p-values would be those of a single look."""
    check_design(design, base, alpha)
    labels = list(arms)
    started = max(len(labels), (size or 0) + 1)
    level = design.pair_level(started)
    walk = WalkDesign(rounds=rounds, alpha=level, spending=design.spending)
    tests = {
        (one, other): design_test(arms[other], arms[one], tasks, walk, design.ends(rounds))
        for one, other in design.pairs(labels)
    }
    count = len(design.pairs([str(number) for number in range(started)]))
    found = _table(variants, arms, tasks, base, alpha, design.family, count, tests)
    played = sequential(design, rounds, arms, tasks, found.differences)
    return replace(_without_pending(found, played.stopped), sequential=played)


def _without_pending(found: Comparison, stopped: Collection[str]) -> Comparison:
    """What a label does not play because it is decided is not pending."""
    scores = {
        task: {label: _played(one, label in stopped) for label, one in by_label.items()}
        for task, by_label in found.scores.items()
    }
    overall = {
        label: replace(one, counted=_played(one.counted, label in stopped))
        for label, one in found.overall.items()
    }
    return replace(found, scores=scores, overall=overall)


def _played(score: Score, stopped: bool) -> Score:
    return replace(score, pending=0) if stopped else score


def _table(
    variants: Variants,
    arms: Mapping[str, Arm],
    tasks: list[str],
    base: str | None,
    alpha: float,
    family: Family,
    size: int,
    tests: Mapping[tuple[str, str], PairTest],
) -> Comparison:
    order = list(arms)
    overall = {label: _overall(variants[label], arms[label], tasks) for label in order}
    differences = _differences(tests, alpha, size)
    separated = [(one.base, one.variant) for one in differences if one.separated]
    ranked = sorted(order, key=lambda label: (-(overall[label].rate or 0.0), label))
    return Comparison(
        base=base,
        alpha=alpha,
        family=family,
        size=size,
        labels=order,
        tasks=tasks,
        missing=_missing(arms, tasks),
        scores=_scores(arms),
        overall=overall,
        differences=differences,
        by_task={},
        letters=compact_letters(ranked, separated),
        deviation=_deviation([arm.rates(tasks) for arm in arms.values()]),
    )


def _check(variants: Variants, base: str | None) -> None:
    if base is not None and base not in variants:
        raise FoundryError(
            f"base {base!r} is not among the evaluations {sorted(variants)}",
            "name one of the labels of the input 'evaluations'",
        )
    for label, evaluations in variants.items():
        if not evaluations:
            raise FoundryError(f"variant {label!r} has no evaluation", "evaluate it, or drop it")


def _pairs(order: Sequence[str], family: Family) -> list[tuple[str, str]]:
    """(held against, tested)"""
    if family == "base":
        return [(order[0], label) for label in order[1:]]
    return list(combinations(order, 2))


def common_tasks(arms: Mapping[str, Arm]) -> list[str]:
    """The tasks that every evaluation ran, sorted. FoundryError when there is none."""
    every = [set(e.outcomes) for arm in arms.values() for e in arm.evaluations]
    tasks = sorted(set.intersection(*every))
    if not tasks:
        raise FoundryError("the evaluations share no task", "evaluate them on the same tasks")
    return tasks


def _missing(arms: Mapping[str, Arm], common: Sequence[str]) -> dict[str, list[str]]:
    every = {task for arm in arms.values() for e in arm.evaluations for task in e.outcomes}
    return {
        task: [
            label
            for label, arm in arms.items()
            if any(task not in one.outcomes for one in arm.evaluations)
        ]
        for task in sorted(every - set(common))
    }


def _scores(arms: Mapping[str, Arm]) -> dict[str, dict[str, Score]]:
    """task → label → score over the label's seeds, of every task that it ran."""
    found: dict[str, dict[str, Score]] = {}
    for label, arm in arms.items():
        for task in {task for one in arm.evaluations for task in one.outcomes}:
            scores = [one.scores[task] for one in arm.evaluations if task in one.scores]
            found.setdefault(task, {})[label] = total(scores)
    return dict(sorted(found.items()))


def _overall(evaluations: Mapping[str, Evaluation], arm: Arm, tasks: Sequence[str]) -> Overall:
    seeds = {name: balanced_rate(one, tasks) for name, one in evaluations.items()}
    rates = arm.rates(tasks)
    return Overall(
        counted=total(one.scores[task] for one in arm.evaluations for task in tasks),
        rate=fmean(rates) if rates else None,
        seeds=seeds,
    )


def _differences(
    tests: Mapping[tuple[str, str], PairTest], alpha: float, size: int
) -> list[Difference]:
    dropped = [1.0] * (size - len(tests))
    known = [1.0 if test.p is None else test.p for test in tests.values()]
    corrected = holm([*known, *dropped])
    return [
        Difference(
            variant=variant,
            base=base,
            difference=test.difference,
            low=test.low,
            high=test.high,
            decision=_decision(test, p, alpha),
            basis=test.basis,
            test=test.test,
            p_value=test.p,
            p_corrected=None if test.p is None else p,
            p_episodes=test.p_episodes,
            p_seeds=test.p_seeds,
            pairs=test.pairs,
            discordant=test.discordant,
            unpaired=test.unpaired,
            detectable=test.detectable,
            note=test.note,
        )
        for ((base, variant), test), p in zip(tests.items(), corrected, strict=False)
    ]


def _decision(test: PairTest, p: float, alpha: float) -> str:
    if test.direction:
        return "better" if test.direction > 0 else "worse"
    if test.ended:
        return "not separated"
    if test.p is None:
        return "undecided" if test.test in ("exact walk", "e-value") else "no verdict"
    if p > alpha:
        return "not separated"
    return "better" if test.difference > 0 else "worse"


def _by_task(
    arms: Mapping[str, Arm], tasks: Sequence[str], base: str
) -> dict[str, dict[str, float]]:
    """Corrected over labels and tasks together: a table of its own, beside the verdict."""
    places = [(task, label) for task in tasks for label in arms if label != base]
    raw = []
    for task, label in places:
        try:
            raw.append(block_test(arms[label].outcomes([task]), arms[base].outcomes([task])).p)
        except FoundryError:  # one arm has nothing but crashes there
            raw.append(1.0)
    found: dict[str, dict[str, float]] = {task: {} for task in tasks}
    for (task, label), p in zip(places, holm(raw), strict=True):
        found[task][label] = p
    return found


def _deviation(rates: Sequence[Sequence[float]]) -> tuple[float, float, float] | None:
    """Standard deviation of seeds' rates, pooled over variants, with its chi-square interval."""
    from scipy import stats

    groups = [group for group in rates if len(group) > 1]
    degrees = sum(len(group) - 1 for group in groups)
    if not degrees:
        return None
    squares = sum(sum((rate - fmean(group)) ** 2 for rate in group) for group in groups)
    return (
        sqrt(squares / degrees),
        sqrt(squares / stats.chi2.ppf(0.975, degrees)),
        sqrt(squares / stats.chi2.ppf(0.025, degrees)),
    )
