"""Looking while two policies still play the same scenarios: the exact walk on discordant pairs.

A round is one scenario of every task, played by both arms; a pair is discordant where one arm
succeeds and the other fails. Which pairs are discordant tells nothing about which arm is better,
and given that, each pair's sign is a fair coin if the arms do not differ, whatever the rates, the
tasks and how alike outcomes of one scenario are. So D, wins minus losses, is a random walk, and the
chance that it ever reached a boundary is an exact sum without a nuisance parameter. The boundary is
chosen look by look under an error-spending schedule (Lan & DeMets 1983); what a look leaves unspent
the next ones may spend.

`e_value` is the alternative where no number of rounds was fixed beforehand.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import special

from foundry_core.errors import FoundryError
from foundry_core.evaluation.design import Rule
from foundry_core.evaluation.statistics.spending import spent


@dataclass(frozen=True, kw_only=True)
class WalkDesign:
    """What is fixed before the first episode. rounds: the budget, which an e-value does not need.
    alpha: two-sided, in total over all looks."""

    rounds: int
    alpha: float = 0.05
    spending: Rule = "obrien-fleming"

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise FoundryError(f"rounds = {self.rounds}: a budget has at least one round")
        if not 0 < self.alpha < 1:
            raise FoundryError(f"alpha {self.alpha} must lie strictly between 0 and 1")


@dataclass(frozen=True, kw_only=True)
class Look:
    """After `rounds` complete rounds in all: the wins and losses among their discordant pairs."""

    rounds: int
    wins: int
    losses: int


@dataclass(frozen=True, kw_only=True)
class WalkResult:
    """direction: 1 A is better, -1 worse, 0 not separated. rounds: played when that was decided,
    or so far. boundaries: per look the smallest |D| that separates, None where none can. spent: the
    error that the looks may have made so far, at most alpha."""

    direction: int
    rounds: int
    boundaries: tuple[int | None, ...]
    spent: float


class Walk:
    """One pair, look by look."""

    def __init__(self, design: WalkDesign) -> None:
        self._design = design
        self._known = Look(rounds=0, wins=0, losses=0)
        self._law = np.ones(1)  # of D among undecided walks, from -discordant to +discordant
        self._spent = 0.0
        self._boundaries: list[int | None] = []
        self._direction = 0

    def look(self, look: Look) -> int:
        """The direction, 0 while undecided. Looks are cumulative and may come at any rounds, as
        long as their times do not depend on wins and losses. FoundryError for looks that go
        backwards or beyond the budget."""
        law = np.convolve(self._law, _steps(_fresh(self._design, self._known, look), 0.5))
        self._known = look
        boundary, mass = _bound(self._design, law, look.rounds / self._design.rounds, self._spent)
        self._boundaries.append(boundary)
        self._spent += mass
        if boundary is not None:
            if abs(look.wins - look.losses) >= boundary:
                self._direction = 1 if look.wins > look.losses else -1
            law = np.where(_distance(law) >= boundary, 0.0, law)
        self._law = law
        return self._direction

    @property
    def result(self) -> WalkResult:
        """So far."""
        return WalkResult(
            direction=self._direction,
            rounds=self._known.rounds,
            boundaries=tuple(self._boundaries),
            spent=self._spent,
        )


def walk(design: WalkDesign, looks: Sequence[Look]) -> WalkResult:
    """Judges after each look and stops at the first that separates."""
    under_way = Walk(design)
    for look in looks:
        if under_way.look(look):
            break
    return under_way.result


def _fresh(design: WalkDesign, before: Look, look: Look) -> int:
    """Discordant pairs since the look before."""
    wins, losses = look.wins - before.wins, look.losses - before.losses
    if wins < 0 or losses < 0 or look.rounds <= before.rounds:
        raise FoundryError(
            f"a look after {look.rounds} rounds with {look.wins} wins and {look.losses} losses "
            f"follows one after {before.rounds} with {before.wins} and {before.losses}",
            "looks are cumulative",
        )
    if look.rounds > design.rounds and design.spending != "e-value":
        raise FoundryError(
            f"{look.rounds} rounds were played, {design.rounds} were committed to",
            "a budget cannot be extended: plan a new comparison with new scenarios, or an e-value",
        )
    return wins + losses


@lru_cache(maxsize=4096)
def _steps(count: int, win: float) -> np.ndarray:
    """The law of D after so many pairs, each won with this chance. Every second place is empty."""
    if count < 2:
        return np.array([1 - win, 0.0, win]) if count else np.ones(1)
    return np.convolve(_steps(count // 2, win), _steps(count - count // 2, win))


def _distance(law: np.ndarray) -> np.ndarray:
    return np.abs(np.arange(len(law)) - len(law) // 2)


def _bound(
    design: WalkDesign, law: np.ndarray, share: float, error: float
) -> tuple[int | None, float]:
    """The smallest |D| that separates at this look, None if none can, and the mass beyond it."""
    if design.spending != "e-value":
        allowed = design.alpha * spent(design.spending, share, design.alpha)
        return _boundary(law, allowed - error)
    pairs = len(law) // 2
    distances = np.arange(pairs % 2, pairs + 1, 2)
    enough = _evidence((pairs + distances) / 2, (pairs - distances) / 2) >= -np.log(design.alpha)
    if not enough.any():
        return None, 0.0
    first = int(distances[enough.argmax()])
    return first, float(law[_distance(law) >= first].sum())


def _boundary(law: np.ndarray, allowed: float) -> tuple[int | None, float]:
    """The smallest k whose two-sided mass fits into what is allowed, and that mass."""
    most = len(law) // 2
    outer = law[:most] + law[:most:-1]  # from the farthest |D| to 1
    masses = np.cumsum(outer)
    fitting = int(np.searchsorted(masses, allowed * (1 + 1e-12), side="right"))
    filled = np.flatnonzero(outer[:fitting])
    if not len(filled):
        return None, 0.0
    return most - int(filled[-1]), float(masses[fitting - 1])


def walk_power(design: WalkDesign, discordant: Sequence[int], win: float) -> float:
    """P(the walk separates in favour of A) where `discordant` pairs come per look at equal
    intervals, each a win with probability `win`; 0.5 gives half of the error."""
    law, real = np.ones(1), np.ones(1)
    error = found = 0.0
    for number, steps in enumerate(discordant, 1):
        law, real = np.convolve(law, _steps(steps, 0.5)), np.convolve(real, _steps(steps, win))
        boundary, mass = _bound(design, law, number / len(discordant), error)
        error += mass
        if boundary is not None:
            offset = np.arange(len(law)) - len(law) // 2
            found += float(real[offset >= boundary].sum())
            inside = np.abs(offset) < boundary
            law, real = np.where(inside, law, 0.0), np.where(inside, real, 0.0)
    return found


def e_value(wins: int, losses: int) -> float:
    """Evidence against equal arms that may be looked at any number of times, with no end fixed:
    2^d · B(wins + ½, losses + ½) / B(½, ½) with d = wins + losses. Its expectation is 1 if the arms
    do not differ, so it ever exceeds 1/alpha with probability at most alpha (Ville)."""
    return float(np.exp(_evidence(np.array(wins), np.array(losses))))


def _evidence(wins: np.ndarray, losses: np.ndarray) -> np.ndarray:
    """The logarithm of the e-value."""
    mixed = special.betaln(wins + 0.5, losses + 0.5)
    return (wins + losses) * np.log(2) + mixed - special.betaln(0.5, 0.5)
