"""What a verdict says, as rows. Apart from what judges, which takes a second to import."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from foundry_core.evaluation.comparison.result import Comparison, Effect

Change = tuple[str | None, Any, Any]


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
