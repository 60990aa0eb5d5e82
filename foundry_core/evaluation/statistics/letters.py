"""Compact letter display: who is separated from whom, readable at a glance.

Two labels share a letter IF AND ONLY IF their pair is not significantly different. One letter per
maximal clique of the graph of non-significant pairs gives exactly that (Piepho 2004).
"""

from collections.abc import Collection, Iterable, Sequence


def compact_letters(
    labels: Sequence[str], significant: Iterable[Collection[str]]
) -> dict[str, str]:
    """Label → its letters. `significant`: the separated pairs; every other pair shares a letter.

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
