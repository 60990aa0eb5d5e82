"""A family of tests: corrections, so that the chance of any false separation stays below alpha, and
the compact letter display of what they separate.
"""

from collections.abc import Collection, Iterable, Sequence


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


def compact_letters(
    labels: Sequence[str], significant: Iterable[Collection[str]]
) -> dict[str, str]:
    """Label → its letters. Two labels share one IF AND ONLY IF their pair is not `significant`: one
    letter per maximal clique of the graph of the other pairs (Piepho 2004).

    Letters follow the order of `labels`: give the best first and it gets "a".
    """
    separated = {frozenset(pair) for pair in significant}
    places = range(len(labels))
    neighbours = {
        i: {j for j in places if i != j and frozenset((labels[i], labels[j])) not in separated}
        for i in places
    }
    cliques = sorted(_maximal_cliques(set(), set(places), set(), neighbours))
    letters: dict[str, str] = dict.fromkeys(labels, "")
    for rank, clique in enumerate(cliques):
        for i in clique:
            letters[labels[i]] += letter(rank)
    return letters


def letter(rank: int) -> str:
    """a … z, then a1 … z1, a2 …"""
    rounds, place = divmod(rank, 26)
    return chr(ord("a") + place) + (str(rounds) if rounds else "")


def _maximal_cliques(
    clique: set[int], candidates: set[int], done: set[int], neighbours: dict[int, set[int]]
) -> list[tuple[int, ...]]:
    """Bron-Kerbosch with pivoting."""
    if not candidates and not done:
        return [tuple(sorted(clique))]
    found = []
    pivot = max(sorted(candidates | done), key=lambda v: len(candidates & neighbours[v]))
    for v in sorted(candidates - neighbours[pivot]):
        found += _maximal_cliques(
            clique | {v}, candidates & neighbours[v], done & neighbours[v], neighbours
        )
        candidates = candidates - {v}
        done = done | {v}
    return found
