"""Evaluations side by side: every cell with its interval, every difference with an exact p-value.

Each label is compared with the base over all tasks together (pooled) and per task, by Barnard's
exact unconditional test. The pooled comparisons form one family and the per-task ones another;
each is corrected by Holm. Labels share a letter unless their pooled difference is significant.
"""

from collections.abc import Mapping
from itertools import combinations
from typing import Any

from rich.table import Table

from foundry_core.errors import FoundryError
from foundry_core.evaluation.statistics.families import holm
from foundry_core.evaluation.statistics.fixed import Arms, barnard
from foundry_core.evaluation.statistics.intervals import clopper_pearson
from foundry_core.evaluation.statistics.letters import compact_letters

Cells = Mapping[str, Mapping[str, int]]


def compare(evaluations: Mapping[str, Cells], base: str, alpha: float = 0.05) -> dict[str, Any]:
    """evaluations: label → task → {n, successes, crashed}. Returns plain data for JSON.

    Only tasks that all labels ran are pooled; others are listed under `left_out`.
    """
    if base not in evaluations:
        raise FoundryError(
            f"base {base!r} is not among the evaluations {sorted(evaluations)}",
            "name one of the labels of the input 'evaluations'",
        )
    common = sorted(set.intersection(*(set(cells) for cells in evaluations.values())))
    if not common:
        raise FoundryError("the evaluations share no task", "evaluate them on the same tasks")
    others = sorted({task for cells in evaluations.values() for task in cells} - set(common))
    labels = [base, *sorted(set(evaluations) - {base})]
    pooled = {label: _total(evaluations[label], common) for label in labels}
    return {
        "base": base,
        "alpha": alpha,
        "labels": labels,
        "tasks": common,
        "left_out": others,
        "cells": {
            task: {label: _cell(evaluations[label][task]) for label in labels} for task in common
        },
        "pooled": {label: _cell(pooled[label]) for label in labels},
        "against_base": _against_base(evaluations, pooled, labels, common, alpha),
        "letters": _letters(pooled, labels, alpha),
    }


def _cell(counts: Mapping[str, int]) -> dict[str, Any]:
    n, successes = counts["n"], counts["successes"]
    low, high = clopper_pearson(successes, n)
    return {
        "n": n,
        "successes": successes,
        "crashed": counts.get("crashed", 0),
        "rate": successes / n if n else None,
        "low": low,
        "high": high,
    }


def _total(cells: Cells, tasks: list[str]) -> dict[str, int]:
    keys = ("n", "successes", "crashed")
    return {key: sum(cells[task].get(key, 0) for task in tasks) for key in keys}


def _p_value(a: Mapping[str, int], b: Mapping[str, int]) -> float:
    return barnard(Arms(s1=a["successes"], n1=a["n"], s0=b["successes"], n0=b["n"]))


def _against_base(
    evaluations: Mapping[str, Cells],
    pooled: Mapping[str, Mapping[str, int]],
    labels: list[str],
    tasks: list[str],
    alpha: float,
) -> dict[str, Any]:
    base, variants = labels[0], labels[1:]
    p_pooled = [_p_value(pooled[base], pooled[label]) for label in variants]
    pairs = [(label, task) for label in variants for task in tasks]
    p_tasks = [_p_value(evaluations[base][t], evaluations[label][t]) for label, t in pairs]
    corrected_tasks = dict(zip(pairs, zip(p_tasks, holm(p_tasks), strict=True), strict=True))
    found = {}
    for label, p, corrected in zip(variants, p_pooled, holm(p_pooled), strict=True):
        difference = _rate(pooled[base]) - _rate(pooled[label])
        separated = corrected <= alpha
        found[label] = {
            "difference": difference,
            "p_value": p,
            "p_corrected": corrected,
            "decision": _decision(separated, difference),
            "tasks": {
                task: dict(
                    zip(("p_value", "p_corrected"), corrected_tasks[label, task], strict=True)
                )
                for task in tasks
            },
        }
    return found


def _rate(counts: Mapping[str, int]) -> float:
    return counts["successes"] / counts["n"] if counts["n"] else 0.0


def _decision(separated: bool, difference: float) -> str:
    if not separated:
        return "not separated from the base"
    return "worse than the base" if difference > 0 else "better than the base"


def _letters(
    pooled: Mapping[str, Mapping[str, int]], labels: list[str], alpha: float
) -> dict[str, str]:
    ranked = sorted(labels, key=lambda label: (-_rate(pooled[label]), label))
    pairs = list(combinations(ranked, 2))
    corrected = holm([_p_value(pooled[a], pooled[b]) for a, b in pairs])
    separated = [pair for pair, p in zip(pairs, corrected, strict=True) if p <= alpha]
    return compact_letters(ranked, separated)


def cell_text(cell: Mapping[str, Any]) -> str:
    """'17/20  85 % [62, 97]': a rate never stands without its count and interval."""
    if not cell["n"]:
        return "no episodes"
    crashed = f", {cell['crashed']} crashed" if cell["crashed"] else ""
    interval = f"[{100 * cell['low']:.0f}, {100 * cell['high']:.0f}]"
    return f"{cell['successes']}/{cell['n']}  {100 * cell['rate']:.0f} % {interval}{crashed}"


def p_text(p: float) -> str:
    return f"{p:.1e}" if p < 1e-3 else f"{p:.3f}"


def rows(comparison: Mapping[str, Any]) -> list[list[str]]:
    """Header and rows of the result table: tasks, all together, p against the base, letters."""
    labels = comparison["labels"]
    table = [["task", *labels]]
    for task in comparison["tasks"]:
        table.append([task, *(cell_text(comparison["cells"][task][label]) for label in labels)])
    table.append(["all tasks", *(cell_text(comparison["pooled"][label]) for label in labels)])
    p_values = [
        p_text(comparison["against_base"][label]["p_corrected"]) if label in
        comparison["against_base"] else "base"
        for label in labels
    ]  # fmt: skip
    table.append(["p against base (exact, Holm)", *p_values])
    table.append(["letters (shared = not separated)", *(comparison["letters"][x] for x in labels)])
    return table


def comparison_table(comparison: Mapping[str, Any]) -> Table:
    header, *body = rows(comparison)
    table = Table(title="success, 95 % Clopper-Pearson intervals", title_justify="left")
    for column in header:
        table.add_column(column)
    for row in body:
        table.add_row(*row, end_section=row[0] == comparison["tasks"][-1])
    return table


def markdown(comparison: Mapping[str, Any]) -> str:
    header, *body = rows(comparison)
    lines = [header, ["---"] * len(header), *body]
    return "".join(f"| {' | '.join(row)} |\n" for row in lines)
