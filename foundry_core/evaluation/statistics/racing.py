"""Several policies on one budget: who is separated stops, and its episodes are saved.

After every look each pair that is still open is judged by the exact walk (`walk`) on the scenarios
both have played, at a level fixed before the start: nothing that one pair leaves unspent goes to
another, so the promise holds whatever stops when. Stopping is about these policies; a claim about
recipes needs all seeds of a variant.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from foundry_core.errors import FoundryError
from foundry_core.evaluation.design import Design
from foundry_core.evaluation.statistics.walk import Look, Walk, WalkDesign, WalkResult

Pair = tuple[str, str]
# scenario outcomes of one arm by (task, scenario)
Outcomes = Mapping[tuple[str, int], bool]


@dataclass(frozen=True, kw_only=True)
class RaceDesign:
    """rounds: the budget. arms: the base first. started: how many there were, where some have
    dropped out since: they count in the level of a pair."""

    design: Design
    rounds: int
    arms: tuple[str, ...]
    started: int = 0

    def __post_init__(self) -> None:
        if len(self.arms) < 2 or len(set(self.arms)) < len(self.arms):
            raise FoundryError(f"a race of {list(self.arms)}: two arms or more, each once")

    @property
    def pairs(self) -> list[Pair]:
        return self.design.pairs(self.arms)

    @property
    def walk(self) -> WalkDesign:
        """Of one pair."""
        level = self.design.pair_level(max(self.started, len(self.arms)))
        return WalkDesign(rounds=self.rounds, alpha=level, spending=self.design.spending)


@dataclass
class Race:
    """What is known so far. running: arms that go on playing; decided: pair → its verdict."""

    design: RaceDesign
    running: tuple[str, ...] = ()
    decided: dict[Pair, WalkResult] = field(default_factory=dict)
    _walks: dict[Pair, Walk] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.running = self.running or self.design.arms
        self._walks = {pair: Walk(self.design.walk) for pair in self.design.pairs}

    def look(self, rounds: int, outcomes: Mapping[str, Outcomes]) -> tuple[str, ...]:
        """Judges every open pair of running arms after `rounds` rounds; returns who goes on."""
        for pair, walk in self._walks.items():
            if pair in self.decided or not set(pair) <= set(self.running):
                continue
            wins, losses = _discordant(outcomes[pair[0]], outcomes[pair[1]])
            if walk.look(Look(rounds=rounds, wins=wins, losses=losses)):
                self.decided[pair] = walk.result
        self.running = self._going_on()
        return self.running

    def _going_on(self) -> tuple[str, ...]:
        """An arm stops where nothing is left to be decided about it, or, racing for the best,
        where another is better."""
        if self.design.design.family == "best":
            worse = {
                second if result.direction > 0 else first
                for (first, second), result in self.decided.items()
            }
            left = tuple(arm for arm in self.running if arm not in worse)
            return left if len(left) > 1 else ()
        open_arms = {
            arm
            for pair in self.design.pairs
            if pair not in self.decided and set(pair) <= set(self.running)
            for arm in pair
        }
        return tuple(arm for arm in self.running if arm in open_arms)


def _discordant(a: Outcomes, b: Outcomes) -> tuple[int, int]:
    """Scenarios both played in which only A, only B succeeded."""
    common = a.keys() & b.keys()
    return sum(a[at] and not b[at] for at in common), sum(b[at] and not a[at] for at in common)
