"""A sequential design: how evaluations may be judged before their end, fixed before they begin.

Part of recipes and files, so importing it loads no statistics.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, get_args

from pydantic import Field

from foundry_core.errors import FoundryError
from foundry_core.evaluation.statistics.spending import Spending
from foundry_core.pipeline.stage import Config

# What bounds the error of the looks: a schedule over a budget, or evidence that needs no budget.
Rule = Literal[Spending, "e-value"]
# base: every variant against the base. pairs: all against all. best: the best is not dropped.
Family = Literal["base", "pairs", "best"]
SPENDINGS: tuple[str, ...] = get_args(Rule)
FAMILIES: tuple[str, ...] = get_args(Family)


class Design(Config):
    """The budget, in rounds of one scenario of every task, stands beside it."""

    alpha: float = Field(0.05, gt=0, lt=1, description="level of the table over all its looks")
    spending: Rule = Field(
        "obrien-fleming",
        description="how looks share alpha: linear, obrien-fleming, pocock; e-value: without end",
    )
    family: Family = Field(
        "base", description="base: all against it; pairs: all pairs; best: the best must survive"
    )
    looks: int | None = Field(
        None, ge=1, description="at equal distances over the budget; default: after every round"
    )

    def check_table(self, base: str | None, alpha: float) -> None:
        """FoundryError where a table asks for something else than was registered."""
        if self.alpha != alpha:
            raise FoundryError(
                f"alpha {alpha} of the table, {self.alpha} of the design of its evaluations",
                "the level is fixed before the first episode: give the table that of the design",
            )
        if self.family == "base" and base is None:
            raise FoundryError(
                "the design holds every label against a base, and the table has none",
                "name the base",
            )

    def ends(self, rounds: int) -> tuple[int, ...]:
        """Rounds played at each look of a budget. FoundryError for more looks than rounds."""
        looks = self.looks or rounds
        if looks > rounds:
            raise FoundryError(
                f"{looks} looks at {rounds} rounds", "a look needs one scenario of every task more"
            )
        return tuple(-(-rounds * number // looks) for number in range(1, looks + 1))

    def pairs(self, labels: Sequence[str]) -> list[tuple[str, str]]:
        """(held against, tested); the base is the first label."""
        if self.family == "base":
            return [(labels[0], label) for label in labels[1:]]
        return list(combinations(labels, 2))

    def pair_level(self, arms: int) -> float:
        """The two-sided level of one pair among so many arms, fixed whatever stops when.

        base, pairs: alpha shared out evenly (Bonferroni), so that no equal pair is separated with
        probability 1 - alpha. best: only the best arm must survive, which each of the others
        threatens in one direction.
        """
        others = max(1, arms - 1)
        shares = {"base": others, "pairs": others * arms / 2, "best": others / 2}
        return min(self.alpha / shares[self.family], 0.5)


@dataclass(frozen=True, kw_only=True)
class Decided:
    """A pair that a look has separated, after so many rounds."""

    look: int
    rounds: int
    better: str
    worse: str

    @property
    def text(self) -> str:
        return f"{self.better} is better than {self.worse}"


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Of a race. needed: arm → parts that the design has asked of it so far. look: the next one,
    for which those `running` must play their part; None, and nobody runs, when it is over.
    decided: so far, in the order of the looks."""

    needed: Mapping[str, int]
    look: int | None
    running: tuple[str, ...] = ()
    decided: tuple[Decided, ...] = ()
