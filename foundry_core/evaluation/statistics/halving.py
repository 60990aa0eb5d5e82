"""Successive halving: many variants at a small budget, the better of them at a larger one.

A rung keeps whoever did best on its episodes. That says little about who is best: rates of few
episodes scatter, and who leads after a short training need not lead after a long one. Nothing here
bounds how often the best variant is dropped (benchmarks/halving.py simulates it). So who is left is
judged on scenarios that no rung has played; then the verdict keeps its error rate.
"""

from collections.abc import Mapping

from foundry_core.errors import FoundryError


def rung_sizes(variants: int, rungs: int, reduction: int, finalists: int) -> list[int]:
    """How many variants play each rung: one of `reduction` goes on, but no fewer than are judged
    at the end. FoundryError for numbers that leave nothing to choose."""
    if reduction < 2:
        raise FoundryError(
            f"reduction = {reduction}: one of at least 2 goes on to the next rung", "3 is usual"
        )
    if not 1 <= finalists <= variants:
        raise FoundryError(
            f"{finalists} finalists of {variants} variants: at least 1, at most all", "e.g. 1"
        )
    sizes = [variants]
    for _ in range(rungs - 1):
        sizes.append(max(finalists, -(-sizes[-1] // reduction)))
    return sizes


def best(rates: Mapping[str, float | None], number: int) -> tuple[str, ...]:
    """The variants with the highest rates, the best first; of equal ones, who was asked for first.
    One without a rate is none of them."""
    known = {name: rate for name, rate in rates.items() if rate is not None}
    return tuple(sorted(known, key=lambda name: -known[name])[:number])
