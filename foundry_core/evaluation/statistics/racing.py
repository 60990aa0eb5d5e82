"""Several policies on one budget: who is separated stops, and its episodes are saved.

After every look each pair that is still open is judged by the exact walk (`walk`) on the scenarios
both have played, at a level fixed before the start: nothing that one pair leaves unspent goes to
another, so the promise holds whatever stops when. Stopping is about these policies; a claim about
recipes needs all seeds of a variant.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import Literal

from foundry_core.errors import FoundryError
from foundry_core.evaluation.statistics.walk import Look, WalkDesign, WalkResult, walk

# base: every variant against the base. pairs: all against all. best: the best is not dropped.
Family = Literal["base", "pairs", "best"]
Pair = tuple[str, str]
# scenario outcomes of one arm by (task, scenario)
Outcomes = Mapping[tuple[str, int], bool]


@dataclass(frozen=True, kw_only=True)
class RaceDesign:
    """walk: rounds, spending, and the alpha of the whole family. arms: the base first."""

    walk: WalkDesign
    arms: tuple[str, ...]
    family: Family = "base"

    def __post_init__(self) -> None:
        if len(self.arms) < 2 or len(set(self.arms)) < len(self.arms):
            raise FoundryError(f"a race of {list(self.arms)}: two arms or more, each once")

    @property
    def pairs(self) -> list[Pair]:
        if self.family == "base":
            return [(self.arms[0], arm) for arm in self.arms[1:]]
        return list(combinations(self.arms, 2))

    @property
    def pair_alpha(self) -> float:
        """The two-sided level of one pair.

        base, pairs: that of the family shared out evenly (Bonferroni), so that no equal pair is
        separated with probability 1 - alpha. best: only the best arm must survive, which each of
        the others threatens in one direction.
        """
        others = len(self.arms) - 1
        shares = {"base": others, "pairs": others * len(self.arms) / 2, "best": others / 2}
        return min(self.walk.alpha / shares[self.family], 0.5)


@dataclass
class Race:
    """What is known so far. running: arms that go on playing; decided: pair → its verdict."""

    design: RaceDesign
    running: tuple[str, ...] = ()
    decided: dict[Pair, WalkResult] = field(default_factory=dict)
    _looks: dict[Pair, list[Look]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.running = self.running or self.design.arms

    def look(self, rounds: int, outcomes: Mapping[str, Outcomes]) -> tuple[str, ...]:
        """Judges every open pair of running arms after `rounds` rounds; returns who goes on."""
        for pair in self.design.pairs:
            if pair in self.decided or not set(pair) <= set(self.running):
                continue
            wins, losses = _discordant(outcomes[pair[0]], outcomes[pair[1]])
            looks = self._looks.setdefault(pair, [])
            looks.append(Look(rounds=rounds, wins=wins, losses=losses))
            design = WalkDesign(
                rounds=self.design.walk.rounds,
                alpha=self.design.pair_alpha,
                spending=self.design.walk.spending,
            )
            result = walk(design, looks)
            if result.direction:
                self.decided[pair] = result
        self.running = self._going_on()
        return self.running

    def _going_on(self) -> tuple[str, ...]:
        """An arm stops where nothing is left to be decided about it, or, racing for the best,
        where another is better."""
        if self.design.family == "best":
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
