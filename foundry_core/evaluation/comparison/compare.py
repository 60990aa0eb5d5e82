"""Policies and recipes side by side: one engine for `compare`, `verdict` and `eval compare`.

One table is one family: the pairs that are tested are fixed before anything is looked at (every
label against the base, or all pairs), their p-values are corrected together by Holm, and words and
letters follow from those (`family`). Beside the table over all tasks stand one for every group of
tasks and one for every task, families of their own. Which test a pair gets, `pairs` knows; where
evaluations state a sequential design, `by_design`.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields, replace
from itertools import combinations
from math import sqrt
from statistics import fmean

from foundry_core.errors import FoundryError
from foundry_core.evaluation.comparison.arms import Arm, Pairing
from foundry_core.evaluation.comparison.by_design import (
    common_design,
    design_test,
    sequential,
)
from foundry_core.evaluation.comparison.family import family_table, table_of
from foundry_core.evaluation.comparison.groups import Groups, check_groups, known_groups
from foundry_core.evaluation.comparison.result import Comparison, TaskTable
from foundry_core.evaluation.design import Design, Family
from foundry_core.evaluation.score import Evaluation, Score, total
from foundry_core.evaluation.statistics.walk import WalkDesign

Variants = Mapping[str, Mapping[str, Evaluation]]


def compare(
    evaluations: Mapping[str, Evaluation],
    base: str | None = None,
    alpha: float = 0.05,
    *,
    groups: Groups | None = None,
) -> Comparison:
    """label → evaluation of one policy. With a base every other label is held against it; without
    one all pairs are compared. groups: as in `judge`."""
    variants = {label: {label: one} for label, one in evaluations.items()}
    return judge(variants, base, alpha, groups=groups)


def judge(
    variants: Variants,
    base: str | None = None,
    alpha: float = 0.05,
    *,
    size: int | None = None,
    groups: Groups | None = None,
) -> Comparison:
    """variants: label → its evaluations by name, one per seed. size: of the family as it was
    started, where variants have dropped out since: they count with p = 1. groups: name → tasks to
    be reported together, beside those of a known benchmark; each is a family of its own, and so is
    every task. With a design, size is of the comparisons with the base, and there is one table
    only: p-values of groups and tasks would be those of a single look.

    FoundryError where the base is unknown, a variant has no evaluation, no task is common, a group
    has a task that nobody ran, or evaluations state other designs.
    """
    _check(variants, base)
    order = list(variants) if base is None else [base, *(x for x in variants if x != base)]
    arms = {label: Arm(label, variants[label]) for label in order}
    asked = common_tasks(arms)
    named = {**known_groups(asked), **(groups or {})}
    check_groups(named, list(_scores(arms)))
    registered = common_design(arms)
    if registered:
        return _by_design(arms, asked, base, alpha, size, *registered)
    family: Family = "pairs" if base is None else "base"
    pairings = {
        (one, other): Pairing(arms[other], arms[one]) for one, other in _pairs(order, family)
    }
    count = max(size or 0, len(pairings))

    def table(of: Sequence[str]) -> TaskTable:
        return family_table(arms, pairings, [task for task in asked if task in of], alpha, count)

    return replace(
        _comparison(arms, table(asked), base, alpha, family),
        groups={name: table(members) for name, members in named.items()},
        task_tables={task: table([task]) for task in asked} if len(asked) > 1 else {},
    )


def _by_design(
    arms: Mapping[str, Arm],
    asked: Sequence[str],
    base: str | None,
    alpha: float,
    size: int | None,
    design: Design,
    rounds: int,
) -> Comparison:
    design.check_table(base, alpha)
    labels, ends = list(arms), design.ends(rounds)
    started = max(len(labels), (size or 0) + 1)
    walk = WalkDesign(rounds=rounds, alpha=design.pair_level(started), spending=design.spending)
    tests = {
        (one, other): design_test(arms[other], arms[one], asked, walk, ends)
        for one, other in design.pairs(labels)
    }
    count = len(design.pairs([str(number) for number in range(started)]))
    whole = table_of(arms, tests, asked, alpha, count)
    found = _comparison(arms, whole, base, alpha, design.family)
    played = sequential(design, rounds, arms, asked, found.differences)
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


def _comparison(
    arms: Mapping[str, Arm], whole: TaskTable, base: str | None, alpha: float, family: Family
) -> Comparison:
    """With the table over all tasks alone."""
    return Comparison(
        **{one.name: getattr(whole, one.name) for one in fields(TaskTable)},
        base=base,
        alpha=alpha,
        family=family,
        labels=list(arms),
        missing=_missing(arms, whole.tasks),
        scores=_scores(arms),
        crashes=_crashes(arms),
        deviation=_deviation([arm.rates(whole.tasks) for arm in arms.values()]),
        criterion=_criterion(arms),
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


def _missing(arms: Mapping[str, Arm], compared: Sequence[str]) -> dict[str, list[str]]:
    every = {task for arm in arms.values() for e in arm.evaluations for task in e.outcomes}
    return {
        task: [
            label
            for label, arm in arms.items()
            if any(task not in one.outcomes for one in arm.evaluations) or not arm.speaks(task)
        ]
        for task in sorted(every - set(compared))
    }


def _scores(arms: Mapping[str, Arm]) -> dict[str, dict[str, Score]]:
    """task → label → score over the label's seeds, of every task that it ran."""
    found: dict[str, dict[str, Score]] = {}
    for label, arm in arms.items():
        for task in {task for one in arm.evaluations for task in one.outcomes}:
            scores = [one.scores[task] for one in arm.evaluations if task in one.scores]
            found.setdefault(task, {})[label] = total(scores)
    return dict(sorted(found.items()))


def _crashes(arms: Mapping[str, Arm]) -> dict[str, dict[str, int]]:
    """label → cause → episodes, the most frequent first; labels without crashes are left out."""
    found: dict[str, dict[str, int]] = {}
    for label, arm in arms.items():
        causes: Counter[str] = Counter()
        for one in arm.evaluations:
            crashed = total(one.scores.values()).crashed
            causes.update(one.causes)
            causes["unknown"] += crashed - sum(one.causes.values())
        if +causes:
            found[label] = dict((+causes).most_common())
    return found


def _criterion(arms: Mapping[str, Arm]) -> str:
    """Of all labels; of each where they differ, which nothing in the numbers would show."""
    by_label = {
        label: " or ".join(sorted({one.criterion or "not stated" for one in arm.evaluations}))
        for label, arm in arms.items()
    }
    criteria = set(by_label.values())
    if len(criteria) == 1:
        return "" if criteria == {"not stated"} else criteria.pop()
    return "success, which differs: " + "; ".join(f"{k}: {text}" for k, text in by_label.items())


def _deviation(rates: Sequence[Sequence[float]]) -> tuple[float, float, float] | None:
    """Standard deviation of seeds' rates, pooled over variants, with its chi-square interval."""
    groups = [group for group in rates if len(group) > 1]
    degrees = sum(len(group) - 1 for group in groups)
    if not degrees:
        return None
    from scipy import special

    squares = sum(sum((rate - fmean(group)) ** 2 for rate in group) for group in groups)
    return (
        sqrt(squares / degrees),
        sqrt(squares / (2 * special.gammaincinv(degrees / 2, 0.975))),
        sqrt(squares / (2 * special.gammaincinv(degrees / 2, 0.025))),
    )
