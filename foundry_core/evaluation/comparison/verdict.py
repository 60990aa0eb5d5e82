"""The verdict of an ablation: variants against a base, over the replicates of every one.

Each variant was evaluated once per seed. With one seed an episode is the unit, and the claim is
about the policies that were trained. With several, the SEED is the unit: episodes of one seed
resemble each other, so all counts are divided by the measured design effect (Rao & Scott 1992)
before anything is tested, and the claim is about the recipe. The effect is Pearson's dispersion
between the seeds of one variant, pooled over the variants and never taken below 1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import floor, sqrt
from typing import Any

from scipy import stats

from foundry_core.errors import FoundryError
from foundry_core.evaluation.comparison.compare import TaskScores, common_tasks, compare_tested
from foundry_core.evaluation.comparison.result import ComparedScore, Comparison, Effect, Seeds
from foundry_core.evaluation.score import Score, total

# Two values of one normal population differ by less than this many standard deviations in 95 %.
_REPEATABILITY = 1.959964 * sqrt(2)
Change = tuple[str | None, Any, Any]


def judge(
    evaluations: Mapping[str, TaskScores],
    variants: Mapping[str, Sequence[str]],
    base: str,
    alpha: float = 0.05,
) -> Comparison:
    """evaluations: label → task → score; variants: name → the labels of its evaluations, by seed.

    Returns what `compare` returns, with variants as labels, and `seeds`: every replicate's score
    and the spread between seeds. One variant alone (a noise floor) has no differences to test.
    FoundryError where a variant has no evaluation, or no task is common to all.
    """
    for name, labels in variants.items():
        missing = [label for label in labels if label not in evaluations]
        if missing or not labels:
            raise FoundryError(
                f"variant {name!r} has no evaluation {', '.join(missing) or 'at all'}",
                f"the evaluations are {sorted(evaluations)}",
            )
    tasks = common_tasks(evaluations)
    groups = {name: [evaluations[label] for label in labels] for name, labels in variants.items()}
    spread = seed_spread(groups, tasks)
    scores = {
        name: {
            task: _deflated(total(one[task] for one in of_variant), spread.design_effect)
            for task in common_tasks(dict(enumerate(of_variant)))
        }
        for name, of_variant in groups.items()
    }
    replicates = {
        name: {label: _overall(evaluations[label], tasks) for label in labels}
        for name, labels in variants.items()
    }
    seeds = replace(spread, replicates=replicates)
    return replace(compare_tested(scores, base, alpha), seeds=seeds)


def seed_spread(groups: Mapping[str, Sequence[TaskScores]], tasks: Sequence[str]) -> Seeds:
    """groups: variant → the scores of each of its seeds. Returned without `replicates`."""
    squares = pearson = expected = 0.0
    degrees = 0
    for scores in groups.values():
        rates = [rate for one in scores if (rate := _overall(one, tasks).rate) is not None]
        if len(rates) < 2 or len(rates) < len(scores):
            continue
        mean = sum(rates) / len(rates)
        own = sum((rate - mean) ** 2 for rate in rates)
        chance = _binomial_variance(scores, tasks)
        squares += own
        degrees += len(rates) - 1
        expected += chance * (len(rates) - 1)
        # Nothing varies where every episode of every seed agrees: no evidence of either kind.
        pearson += own / chance if chance else 0.0
    if not degrees:
        return Seeds()
    deviation = sqrt(squares / degrees)
    dispersion = pearson / degrees
    return Seeds(
        degrees=degrees,
        deviation=deviation,
        low=sqrt(squares / stats.chi2.ppf(0.975, degrees)),
        high=sqrt(squares / stats.chi2.ppf(0.025, degrees)),
        binomial=sqrt(expected / degrees),
        repeatable=_REPEATABILITY * deviation,
        dispersion=dispersion,
        design_effect=max(1.0, dispersion),
    )


def _overall(scores: TaskScores, tasks: Sequence[str]) -> Score:
    return total(scores[task] for task in tasks)


def _binomial_variance(scores: Sequence[TaskScores], tasks: Sequence[str]) -> float:
    """Variance of one seed's overall rate if every task had one rate for all seeds. Tasks are kept
    apart: pooled, their different difficulty would feign variance that seeds do not have."""
    variance = 0.0
    for task in tasks:
        rate = total(one[task] for one in scores).rate or 0.0
        variance += scores[0][task].n * rate * (1 - rate)
    n = _overall(scores[0], tasks).n
    return variance / n**2 if n else 0.0


def _deflated(counted: Score, effect: float) -> ComparedScore:
    """Tested as `effect` times fewer episodes, at the same rate to within one episode."""
    if effect <= 1 or not counted.n:
        return ComparedScore(counted=counted, tested=counted)
    n = min(counted.n, max(1, floor(counted.n / effect)))
    tested = replace(counted, n=n, successes=round(counted.successes * n / counted.n))
    return ComparedScore(counted=counted, tested=tested)


def effects(judged: Comparison, changes: Mapping[str, Sequence[Change]]) -> list[Effect]:
    """One row per variant and changed path (path, old and new value), the base with no path."""
    found = []
    for name in judged.labels:
        score, difference = judged.pooled[name], judged.against_base.get(name)
        low, high = score.interval
        row = Effect(
            variant=name,
            success=score.counted.rate,
            n=score.counted.n,
            low=low,
            high=high,
            p_value=difference.p_corrected if difference else None,
            decision=difference.decision if difference else "the base",
            letters=judged.letters[name],
        )
        none: Sequence[Change] = [(None, None, None)]
        for path, old, new in changes.get(name) or none:
            found.append(replace(row, path=path, old=old, new=new))
    return found
