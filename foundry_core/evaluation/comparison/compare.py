"""Evaluations side by side: every score with its interval, every difference with an exact p-value.

Each label is compared with the base over all tasks together (pooled) and per task, by Barnard's
exact unconditional test. The pooled comparisons form one family and the per-task ones another;
each is corrected by Holm. Labels share a letter unless their pooled difference is significant.
"""

from collections.abc import Mapping, Sequence
from functools import reduce
from itertools import combinations
from operator import add
from typing import Any

from foundry_core.errors import FoundryError
from foundry_core.evaluation.comparison.result import (
    ComparedScore,
    Comparison,
    Difference,
    PValue,
)
from foundry_core.evaluation.score import Score
from foundry_core.evaluation.statistics.families import compact_letters, holm
from foundry_core.evaluation.statistics.fixed import Arms, barnard

TaskScores = Mapping[str, Score]
ComparedScores = Mapping[str, ComparedScore]


def compare(evaluations: Mapping[str, TaskScores], base: str, alpha: float = 0.05) -> Comparison:
    """evaluations: label → task → score. Only tasks that all labels ran are compared."""
    scores = {
        label: {task: ComparedScore(counted=score, tested=score) for task, score in tasks.items()}
        for label, tasks in sorted(evaluations.items())
    }
    return compare_tested(scores, base, alpha)


def compare_tested(
    evaluations: Mapping[str, ComparedScores], base: str, alpha: float
) -> Comparison:
    """As `compare`, where fewer episodes are tested than were counted. Labels keep their order,
    the base comes first."""
    if base not in evaluations:
        raise FoundryError(
            f"base {base!r} is not among the evaluations {sorted(evaluations)}",
            "name one of the labels of the input 'evaluations'",
        )
    tasks = common_tasks(evaluations)
    others = {task for scores in evaluations.values() for task in scores} - set(tasks)
    labels = [base, *(label for label in evaluations if label != base)]
    pooled = {label: reduce(add, (evaluations[label][task] for task in tasks)) for label in labels}
    return Comparison(
        base=base,
        alpha=alpha,
        labels=labels,
        tasks=tasks,
        left_out=sorted(others),
        scores={task: {label: evaluations[label][task] for label in labels} for task in tasks},
        pooled=pooled,
        against_base=_against_base(evaluations, pooled, labels, tasks, alpha),
        letters=_letters(pooled, labels, alpha),
    )


def common_tasks(evaluations: Mapping[Any, Mapping[str, object]]) -> list[str]:
    """The tasks that all ran, sorted. FoundryError when there is none."""
    tasks = sorted(set.intersection(*(set(scores) for scores in evaluations.values())))
    if not tasks:
        raise FoundryError("the evaluations share no task", "evaluate them on the same tasks")
    return tasks


def _p_value(a: ComparedScore, b: ComparedScore) -> float:
    return barnard(Arms(s1=a.tested.successes, n1=a.tested.n, s0=b.tested.successes, n0=b.tested.n))


def _against_base(
    evaluations: Mapping[str, ComparedScores],
    pooled: ComparedScores,
    labels: Sequence[str],
    tasks: Sequence[str],
    alpha: float,
) -> dict[str, Difference]:
    base, variants = labels[0], labels[1:]
    by_label = _corrected([_p_value(pooled[base], pooled[label]) for label in variants])
    pairs = [(label, task) for label in variants for task in tasks]
    p_tasks = [_p_value(evaluations[base][t], evaluations[label][t]) for label, t in pairs]
    by_task = dict(zip(pairs, _corrected(p_tasks), strict=True))
    found = {}
    for label, p in zip(variants, by_label, strict=True):
        difference = _rate(pooled[base]) - _rate(pooled[label])
        found[label] = Difference(
            difference=difference,
            p_value=p.p_value,
            p_corrected=p.p_corrected,
            decision=_decision(p.p_corrected <= alpha, difference),
            tasks={task: by_task[label, task] for task in tasks},
        )
    return found


def _corrected(p_values: Sequence[float]) -> list[PValue]:
    corrected = zip(p_values, holm(p_values), strict=True)
    return [PValue(p_value=p, p_corrected=holms) for p, holms in corrected]


def _rate(score: ComparedScore) -> float:
    return score.counted.rate or 0.0


def _decision(separated: bool, difference: float) -> str:
    if not separated:
        return "not separated from the base"
    return "worse than the base" if difference > 0 else "better than the base"


def _letters(pooled: ComparedScores, labels: Sequence[str], alpha: float) -> dict[str, str]:
    ranked = sorted(labels, key=lambda label: (-_rate(pooled[label]), label))
    pairs = list(combinations(ranked, 2))
    corrected = holm([_p_value(pooled[a], pooled[b]) for a, b in pairs])
    separated = [pair for pair, p in zip(pairs, corrected, strict=True) if p <= alpha]
    return compact_letters(ranked, separated)
