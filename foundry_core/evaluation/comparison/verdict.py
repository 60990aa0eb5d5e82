"""The verdict of an ablation: variants, each with its seeds' evaluations, against a base."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from foundry_core.errors import FoundryError
from foundry_core.evaluation.comparison.arms import Arm
from foundry_core.evaluation.comparison.compare import judge
from foundry_core.evaluation.comparison.factors import Settings
from foundry_core.evaluation.comparison.result import Comparison, Effect
from foundry_core.evaluation.score import Evaluation

Change = tuple[str | None, Any, Any]


def judge_variants(
    evaluations: Mapping[str, Evaluation],
    variants: Mapping[str, Sequence[str]],
    base: str,
    alpha: float = 0.05,
    *,
    size: int | None = None,
    settings: Settings | None = None,
) -> Comparison:
    """evaluations: label → evaluation; variants: name → the labels of its evaluations, by seed.
    size: of the family as it was started. settings: what each variant sets, the base what all of
    them change. FoundryError where a variant lacks an evaluation."""
    for name, labels in variants.items():
        missing = [label for label in labels if label not in evaluations]
        if missing or not labels:
            raise FoundryError(
                f"variant {name!r} has no evaluation {', '.join(missing) or 'at all'}",
                f"the evaluations are {sorted(evaluations)}",
            )
    grouped = {
        name: {label: evaluations[label] for label in labels} for name, labels in variants.items()
    }
    found = judge(grouped, base, alpha, size=size)
    if settings is None or found.sequential is not None:
        return found
    from foundry_core.evaluation.comparison.contrasts import contrasts

    arms = {name: Arm(name, own) for name, own in grouped.items()}
    more = contrasts(arms, found.tasks, settings, base, alpha)
    return replace(found, contrasts=more.contrasts, doses=more.doses)


def effects(judged: Comparison, changes: Mapping[str, Sequence[Change]]) -> list[Effect]:
    """One row per variant and changed path (path, old and new value), the base with no path.
    success: every task weighing the same."""
    found = []
    for name in judged.labels:
        overall, difference = judged.overall[name], judged.against_base(name)
        low, high = overall.counted.interval
        row = Effect(
            variant=name,
            success=overall.rate,
            n=overall.counted.n,
            low=low,
            high=high,
            p_value=difference.p_corrected if difference else None,
            decision=decision_text(difference.decision, difference.basis)
            if difference
            else "the base",
            letters=judged.letters[name],
        )
        none: Sequence[Change] = [(None, None, None)]
        for path, old, new in changes.get(name) or none:
            found.append(replace(row, path=path, old=old, new=new))
    return found


def seeds_of(judged: Comparison) -> dict[str, Any]:
    """The seeds of an ablation as JSON: rates by variant and evaluation, their standard deviation
    with its interval (None with one seed each), and the fewest seeds of a variant."""
    deviation, low, high = judged.deviation or (None, None, None)
    rates = {label: dict(overall.seeds) for label, overall in judged.overall.items()}
    fewest = min(map(len, rates.values()))
    return {"deviation": deviation, "low": low, "high": high, "fewest": fewest, "rates": rates}


def decision_text(decision: str, basis: str) -> str:
    """A decision as a table's cell: 'better than the base (provisional)'."""
    words = {
        "better": "better than the base",
        "worse": "worse than the base",
        "not separated": "not separated from the base",
    }.get(decision, decision)
    about = {"provisional": " (provisional)", "none": " (these policies)"}.get(basis, "")
    return words + (about if decision in ("better", "worse") else "")
