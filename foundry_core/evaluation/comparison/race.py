"""A race replayed from the parts that were played: who goes on, and whether the parts fit.

A part is what one arm plays between two looks. Nothing but the design and the outcomes decides, so
that a race that was cut off goes on where it was, and anybody can check one that is over.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from foundry_core.errors import FoundryError
from foundry_core.evaluation.design import Decided, Design, Standing
from foundry_core.evaluation.score import Evaluation, joined
from foundry_core.evaluation.statistics.racing import Outcomes, Race, RaceDesign

# arm → its parts, in the order of the looks; the base first
Parts = Mapping[str, Sequence[Evaluation]]


def replay(design: Design, rounds: int, parts: Parts, started: int = 0) -> Standing:
    """Look by look, until one lacks a part. started: arms there were, where some dropped out."""
    race = Race(RaceDesign(design=design, rounds=rounds, arms=tuple(parts), started=started))
    needed, decided = dict.fromkeys(parts, 0), list[Decided]()
    known: dict[str, dict[tuple[str, int], bool]] = {arm: {} for arm in parts}
    for number, end in enumerate(design.ends(rounds), 1):
        if not race.running:
            break
        if any(len(parts[arm]) < number for arm in race.running):
            return Standing(
                needed=needed, look=number, running=race.running, decided=tuple(decided)
            )
        for arm in race.running:
            needed[arm] = number
            known[arm].update(_outcomes(parts[arm][number - 1]))
        before = set(race.decided)
        race.look(end, known)
        for pair in (pair for pair in race.decided if pair not in before):
            better, worse = pair if race.decided[pair].direction > 0 else pair[::-1]
            decided.append(Decided(look=number, rounds=end, better=better, worse=worse))
    return Standing(needed=needed, look=None, decided=tuple(decided))


def _outcomes(part: Evaluation) -> Outcomes:
    """Without crashes: a crashed episode has no partner."""
    return {
        (task, scenario): success
        for task, by_scenario in part.outcomes.items()
        for scenario, success in by_scenario.items()
        if success is not None
    }


def finished_race(
    design: Design, rounds: int, parts: Parts, started: int = 0
) -> dict[str, Evaluation]:
    """Every arm's parts as one evaluation that states the design. FoundryError unless they are
    exactly those that the design asks for."""
    standing = replay(design, rounds, parts, started)
    for arm, played in parts.items():
        if standing.look is not None and arm in standing.running and len(played) < standing.look:
            raise FoundryError(
                f"{arm!r} stops after {len(played)} parts, and the design lets it play on to look "
                f"{standing.look}",
                "evaluate its next part: only a decision of the design may end it",
            )
    for arm, played in parts.items():
        if len(played) > standing.needed[arm]:
            raise FoundryError(
                f"{arm!r} has {len(played)} parts, and the design ends it after look "
                f"{standing.needed[arm]}",
                "leave the others out: what comes after a decision is not part of the comparison",
            )
    return {
        arm: replace(joined(played), budget=rounds, design=design) for arm, played in parts.items()
    }
