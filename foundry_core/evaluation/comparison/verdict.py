"""The verdict of an ablation: variants against a base, over the replicates of every one.

Each variant was evaluated once per seed. With one seed an episode is the unit, and the claim is
about the policies that were trained. With several, the SEED is the unit: episodes of one seed
resemble each other, so all counts are divided by the measured design effect (Rao & Scott 1992)
before anything is tested, and the claim is about the recipe. The effect is Pearson's dispersion
between the seeds of one variant, pooled over the variants and never taken below 1.
"""

from collections.abc import Mapping, Sequence
from math import floor, sqrt
from typing import Any

from scipy import stats

from foundry_core.errors import FoundryError
from foundry_core.evaluation.comparison.compare import Cells, compare

# Two values of one normal population differ by less than this many standard deviations in 95 %.
_REPEATABILITY = 1.959964 * sqrt(2)


def judge(
    evaluations: Mapping[str, Cells],
    variants: Mapping[str, Sequence[str]],
    base: str,
    alpha: float = 0.05,
) -> dict[str, Any]:
    """evaluations: label → task → {n, successes, crashed}; variants: name → its labels, by seed.

    Returns what `compare` returns, with variants as labels, and `seeds` beside it: every
    replicate's rate, the spread between seeds with its interval, the design effect and the unit.
    One variant alone (a noise floor) has no differences to test. FoundryError where a variant
    has no evaluation, or none of its tasks are common to all.
    """
    for name, labels in variants.items():
        missing = [label for label in labels if label not in evaluations]
        if missing or not labels:
            raise FoundryError(
                f"variant {name!r} has no evaluation {', '.join(missing) or 'at all'}",
                f"the evaluations are {sorted(evaluations)}",
            )
    groups = {name: [evaluations[label] for label in labels] for name, labels in variants.items()}
    tasks = _common_tasks(evaluations)
    spread = seed_spread(groups, tasks)
    effect = spread["design_effect"]
    pooled = {name: _pool(cells) for name, cells in groups.items()}
    tested = {name: _deflate(cells, effect) for name, cells in pooled.items()}
    result = compare(tested, base, alpha)
    _restore_counts(result, pooled)
    replicates = {
        name: [
            {"evaluation": label, **_rate(evaluations[label], tasks)}
            for label in variants[name]
        ]
        for name in variants
    }  # fmt: skip
    unit = "seeds" if spread["degrees"] else "episodes"
    return result | {"seeds": spread | {"unit": unit, "replicates": replicates}}


def seed_spread(groups: Mapping[str, Sequence[Cells]], tasks: Sequence[str]) -> dict[str, Any]:
    """How far equal recipes with different seeds lie apart.

    deviation: standard deviation of a seed's success rate over all tasks, pooled over variants,
        with a chi-square interval; None with one seed per variant.
    binomial: what it would be if seeds did not matter and only episodes were random.
    repeatable: two single seeds of ONE recipe differ by less than this in 95 % of cases.
    """
    squares = pearson = expected = 0.0
    degrees = 0
    for cells in groups.values():
        rates = [_rate(one, tasks)["rate"] for one in cells]
        if len(cells) < 2 or None in rates:
            continue
        mean = sum(rates) / len(rates)
        own = sum((rate - mean) ** 2 for rate in rates)
        chance = _binomial_variance(cells, tasks)
        squares += own
        degrees += len(rates) - 1
        expected += chance * (len(rates) - 1)
        # Nothing varies where every episode of every seed agrees: no evidence of either kind.
        pearson += own / chance if chance else 0.0
    if not degrees:
        return {"degrees": 0, "deviation": None, "low": None, "high": None, "binomial": None} | {
            "repeatable": None,
            "dispersion": None,
            "design_effect": 1.0,
        }
    deviation = sqrt(squares / degrees)
    dispersion = pearson / degrees
    return {
        "degrees": degrees,
        "deviation": deviation,
        "low": sqrt(squares / stats.chi2.ppf(0.975, degrees)),
        "high": sqrt(squares / stats.chi2.ppf(0.025, degrees)),
        "binomial": sqrt(expected / degrees),
        "repeatable": _REPEATABILITY * deviation,
        "dispersion": dispersion,
        "design_effect": max(1.0, dispersion),
    }


def _common_tasks(evaluations: Mapping[str, Cells]) -> list[str]:
    return sorted(set.intersection(*(set(cells) for cells in evaluations.values())))


def _rate(cells: Cells, tasks: Sequence[str]) -> dict[str, Any]:
    n = sum(cells[task]["n"] for task in tasks)
    successes = sum(cells[task]["successes"] for task in tasks)
    return {"n": n, "successes": successes, "rate": successes / n if n else None}


def _binomial_variance(cells: Sequence[Cells], tasks: Sequence[str]) -> float:
    """Variance of one seed's overall rate if every task had one rate for all seeds. Tasks are kept
    apart: pooled, their different difficulty would feign variance that seeds do not have."""
    total = sum(cells[0][task]["n"] for task in tasks)
    variance = 0.0
    for task in tasks:
        n = sum(one[task]["n"] for one in cells)
        rate = sum(one[task]["successes"] for one in cells) / n if n else 0.0
        variance += cells[0][task]["n"] * rate * (1 - rate)
    return variance / total**2 if total else 0.0


def _pool(cells: Sequence[Cells]) -> dict[str, dict[str, int]]:
    keys = ("n", "successes", "crashed")
    tasks = set.intersection(*(set(one) for one in cells))
    return {
        task: {key: sum(one[task].get(key, 0) for one in cells) for key in keys}
        for task in sorted(tasks)
    }


def _deflate(cells: Cells, effect: float) -> dict[str, dict[str, int]]:
    """Counts worth `effect` times fewer episodes, at the same rate to within one episode."""
    if effect <= 1:
        return {task: dict(cell) for task, cell in cells.items()}
    smaller = {}
    for task, cell in cells.items():
        n = min(cell["n"], max(1, floor(cell["n"] / effect)))
        successes = round(cell["successes"] * n / cell["n"]) if cell["n"] else 0
        smaller[task] = {**cell, "n": n, "successes": successes}
    return smaller


def _restore_counts(result: dict[str, Any], pooled: Mapping[str, Cells]) -> None:
    """Cells show what was counted; intervals, p-values and letters stay those of the test."""
    total = {
        name: {
            key: sum(cells[task].get(key, 0) for task in result["tasks"])
            for key in ("n", "successes", "crashed")
        }
        for name, cells in pooled.items()
    }
    rows = [(result["pooled"], total)]
    for task, shown in result["cells"].items():
        rows.append((shown, {name: pooled[name][task] for name in shown}))
    for shown, counted in rows:
        for name, cell in shown.items():
            n, successes = counted[name]["n"], counted[name]["successes"]
            cell |= {"n": n, "successes": successes, "rate": successes / n if n else None}
    for name, found in result["against_base"].items():
        rates = [result["pooled"][label]["rate"] or 0.0 for label in (result["base"], name)]
        found["difference"] = rates[0] - rates[1]


def effects(
    judged: Mapping[str, Any], changes: Mapping[str, Sequence[tuple[str, Any, Any]]]
) -> list[dict[str, Any]]:
    """One row per variant and changed path (old and new value), the base with no path: what
    lineage keeps in `ablation_effects`."""
    rows = []
    for name in judged["labels"]:
        cell, found = judged["pooled"][name], judged["against_base"].get(name)
        row = {
            "variant": name,
            "success": cell["rate"],
            "n": cell["n"],
            "low": cell["low"],
            "high": cell["high"],
            "p_value": found["p_corrected"] if found else None,
            "decision": found["decision"] if found else "the base",
            "letters": judged["letters"][name],
        }
        for path, old, new in changes.get(name) or [(None, None, None)]:
            rows.append(row | {"path": path, "old": old, "new": new})
    return rows
