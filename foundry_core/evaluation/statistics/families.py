"""Corrections over a family of tests: the chance of any false separation stays below alpha."""

from collections.abc import Sequence


def bonferroni(p_values: Sequence[float], size: int | None = None) -> list[float]:
    """p × family size, at most 1. The only one open to sequential tables, whose level must be
    known before the first look."""
    size = len(p_values) if size is None else size
    return [min(1.0, p * size) for p in p_values]


def holm(p_values: Sequence[float]) -> list[float]:
    """Step-down adjusted p-values (Holm 1979), in the order given: never larger than Bonferroni's
    and valid under any dependence."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    running = 0.0
    for rank, i in enumerate(order):
        running = max(running, min(1.0, p_values[i] * (len(p_values) - rank)))
        adjusted[i] = running
    return adjusted
