"""A table whose evaluations state a sequential design: judged by it, at its looks and levels.

At the end as well: who may look early cannot have the test of a single look beside it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from foundry_core.errors import FoundryError
from foundry_core.evaluation.comparison.arms import LEFT_OUT, Arm, Crashes, Pairing
from foundry_core.evaluation.comparison.pairs import PairTest, complete_rounds
from foundry_core.evaluation.comparison.result import Difference, Sequential
from foundry_core.evaluation.design import Design
from foundry_core.evaluation.statistics.detectable import walk_difference
from foundry_core.evaluation.statistics.walk import Look, WalkDesign, WalkResult, walk


def common_design(arms: Mapping[str, Arm]) -> tuple[Design, int] | None:
    """The design that all evaluations state, and its budget in rounds. None where none states one,
    and for several seeds: those nobody may judge before the end. FoundryError where they differ."""
    stated = {
        label: (one.design, one.budget) for label, arm in arms.items() for one in arm.evaluations
    }
    first, *others = stated
    if all(design is None for design, _ in stated.values()):
        return None
    for label in others:
        if stated[label] != stated[first]:
            raise FoundryError(
                f"{first} was registered with {_words(*stated[first])}, {label} with "
                f"{_words(*stated[label])}",
                "one table has one design: evaluate all with the same design and budget",
            )
    design, rounds = stated[first]
    if design is None or any(len(arm.evaluations) > 1 for arm in arms.values()):
        return None
    return design, rounds


def _words(design: Design | None, budget: int) -> str:
    if design is None:
        return "no design"
    values = design.model_dump(mode="json", exclude_none=True).items()
    return f"{', '.join(f'{name} {value}' for name, value in values)}, budget {budget}"


def design_test(
    a: Arm, b: Arm, tasks: Sequence[str], design: WalkDesign, ends: Sequence[int]
) -> PairTest:
    """A against B at the looks after `ends` rounds, as far as both have played. Everything it says
    is about the rounds at which it was judged."""
    looks = _looks(a, b, tasks, ends)
    result = walk(design, looks)
    first = result.rounds or design.rounds
    a, b = _rounds(a, tasks, first), _rounds(b, tasks, first)
    spoken = [task for task in tasks if a.outcomes(task) and b.outcomes(task)]
    if not spoken:
        note = "no task has outcomes of both"
        return PairTest(
            difference=None, low=None, high=None, basis="none", test="none", p=None, note=note
        )
    found = Pairing(a, b).test(spoken)
    ended = not result.direction and result.rounds == design.rounds
    turned = result.direction and _crashes_turn(a, b, tasks, design, ends, result)
    name = "e-value" if design.spending == "e-value" else "exact walk"
    return PairTest(
        difference=found.difference,
        low=found.low,
        high=found.high,
        basis="none",
        test="none: crashes" if turned else name,
        p=None,
        direction=0 if turned else result.direction,
        ended=ended,
        pairs=found.pairs,
        discordant=found.discordant,
        unpaired=found.unpaired,
        detectable=walk_difference(design, _fresh(looks), found.pairs) if ended else None,
        note=_note(result, ends, ended)
        + ("; crashes counted against the better arm turn it" if turned else ""),
    )


def _looks(
    a: Arm, b: Arm, tasks: Sequence[str], ends: Sequence[int], crashes: Crashes = LEFT_OUT
) -> list[Look]:
    played = complete_rounds(a, b, tasks, crashes)
    return [played[end - 1] for end in ends if end <= len(played)]


def _rounds(arm: Arm, tasks: Sequence[str], count: int) -> Arm:
    """The arm as it was after so many rounds."""
    name, one = next(iter(arm.named.items()))
    outcomes = {
        task: {at: one.outcomes[task][at] for at in sorted(one.outcomes[task])[:count]}
        for task in tasks
    }
    return Arm(arm.name, {name: replace(one, outcomes=outcomes)})


def _fresh(looks: Sequence[Look]) -> list[int]:
    """Discordant pairs of each look that no earlier one had."""
    counts = [0, *(look.wins + look.losses for look in looks)]
    return [after - before for before, after in pairwise(counts)]


def _crashes_turn(
    a: Arm,
    b: Arm,
    tasks: Sequence[str],
    design: WalkDesign,
    ends: Sequence[int],
    result: WalkResult,
) -> bool:
    """Whether the decision falls where crashes, if the arms differ in them, count against the
    better arm and for the other."""
    if a.crash_share(tasks) == b.crash_share(tasks):
        return False
    against = (False, True) if result.direction > 0 else (True, False)
    return walk(design, _looks(a, b, tasks, ends, against)).direction != result.direction


def _note(result: WalkResult, ends: Sequence[int], ended: bool) -> str:
    if ended:
        return ""
    number = sum(end <= result.rounds for end in ends)
    after = f"after {result.rounds} of {ends[-1]} rounds (look {number} of {len(ends)})"
    return f"{'decided' if result.direction else 'not decided'} {after}"


def sequential(
    design: Design,
    rounds: int,
    arms: Mapping[str, Arm],
    tasks: Sequence[str],
    differences: Sequence[Difference],
) -> Sequential:
    """What was played of the budget. An arm has stopped that did not play it to its end and about
    which nothing is open, or, racing for the best, than which another one is better."""
    dropped = {
        one.base if one.decision == "better" else one.variant
        for one in differences
        if one.separated and design.family == "best"
    }
    open_pairs = ({x.base, x.variant} for x in differences if x.decision == "undecided")
    waiting = set().union(*(pair for pair in open_pairs if not pair & dropped))
    played = {
        label: min(len(arm.evaluations[0].outcomes[task]) for task in tasks)
        for label, arm in arms.items()
    }
    ends = design.ends(rounds)
    stopped = {
        label: sum(end <= count for end in ends)
        for label, count in played.items()
        if count < rounds and label not in waiting
    }
    return Sequential(
        spending=design.spending,
        looks=len(ends),
        rounds=rounds,
        played=played,
        stopped=stopped,
        episodes=sum(played.values()) * len(tasks),
        saved=sum(rounds - played[label] for label in stopped) * len(tasks),
    )
