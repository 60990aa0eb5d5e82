"""The verdict of an ablation: variants, each with its seeds' evaluations, against a base."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from foundry_core.errors import FoundryError
from foundry_core.evaluation.comparison.arms import Arm
from foundry_core.evaluation.comparison.compare import judge
from foundry_core.evaluation.comparison.factors import Settings
from foundry_core.evaluation.comparison.result import Comparison
from foundry_core.evaluation.score import Evaluation


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
