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

import numpy as np
from scipy import special

from foundry_core.errors import FoundryError
from foundry_core.evaluation.statistics.spending import Spending, spent


@dataclass(frozen=True, kw_only=True)
class WalkDesign:
    """What is fixed before the first episode. rounds: the budget. alpha: two-sided, in total over
    all looks."""

    rounds: int
    alpha: float = 0.05
    spending: Spending = "obrien-fleming"

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


def walk(design: WalkDesign, looks: Sequence[Look]) -> WalkResult:
    """Judges after each look and stops at the first that separates. Looks are cumulative and may
    come at any rounds, as long as their times do not depend on wins and losses. FoundryError for
    looks that go backwards or beyond the budget."""
    law = np.ones(1)  # of D among undecided walks, from -discordant to +discordant
    error = 0.0
    boundaries: list[int | None] = []
    known = Look(rounds=0, wins=0, losses=0)
    for look in looks:
        fresh = _fresh(design, known, look)
        known = look
        law = _spread(law, fresh)
        allowed = design.alpha * spent(design.spending, look.rounds / design.rounds, design.alpha)
        boundary, mass = _boundary(law, allowed - error)
        boundaries.append(boundary)
        error += mass
        if boundary is None:
            continue
        if abs(look.wins - look.losses) >= boundary:
            direction = 1 if look.wins > look.losses else -1
            return WalkResult(
                direction=direction,
                rounds=look.rounds,
                boundaries=tuple(boundaries),
                spent=error,
            )
        distance = np.abs(np.arange(len(law)) - len(law) // 2)
        law = np.where(distance >= boundary, 0.0, law)
    return WalkResult(direction=0, rounds=known.rounds, boundaries=tuple(boundaries), spent=error)


def _fresh(design: WalkDesign, before: Look, look: Look) -> int:
    """Discordant pairs since the look before."""
    wins, losses = look.wins - before.wins, look.losses - before.losses
    if wins < 0 or losses < 0 or look.rounds <= before.rounds:
        raise FoundryError(
            f"a look after {look.rounds} rounds with {look.wins} wins and {look.losses} losses "
            f"follows one after {before.rounds} with {before.wins} and {before.losses}",
            "looks are cumulative",
        )
    if look.rounds > design.rounds:
        raise FoundryError(
            f"{look.rounds} rounds were played, {design.rounds} were committed to",
            "a budget cannot be extended: plan a new comparison with new scenarios",
        )
    return wins + losses


def _spread(law: np.ndarray, steps: int) -> np.ndarray:
    """The law of D after as many fair coins more. Every second place is empty."""
    for _ in range(steps):
        wider = np.zeros(len(law) + 2)
        wider[:-2] += law / 2
        wider[2:] += law / 2
        law = wider
    return law


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
    law, error = np.ones(1), 0.0
    real = np.ones(1)
    found = 0.0
    for number, steps in enumerate(discordant, 1):
        law, real = _spread(law, steps), _biased(real, steps, win)
        allowed = design.alpha * spent(design.spending, number / len(discordant), design.alpha)
        boundary, mass = _boundary(law, allowed - error)
        error += mass
        if boundary is not None:
            offset = np.arange(len(law)) - len(law) // 2
            found += float(real[offset >= boundary].sum())
            inside = np.abs(offset) < boundary
            law, real = np.where(inside, law, 0.0), np.where(inside, real, 0.0)
    return found


def _biased(law: np.ndarray, steps: int, win: float) -> np.ndarray:
    for _ in range(steps):
        wider = np.zeros(len(law) + 2)
        wider[:-2] += law * (1 - win)
        wider[2:] += law * win
        law = wider
    return law


def e_value(wins: int, losses: int) -> float:
    """Evidence against equal arms that may be looked at any number of times, with no end fixed:
    2^d · B(wins + ½, losses + ½) / B(½, ½) with d = wins + losses. Its expectation is 1 if the arms
    do not differ, so it ever exceeds 1/alpha with probability at most alpha (Ville)."""
    logarithm = (wins + losses) * np.log(2) + special.betaln(wins + 0.5, losses + 0.5)
    return float(np.exp(logarithm - special.betaln(0.5, 0.5)))
