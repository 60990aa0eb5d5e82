"""Boundaries and total errors by listing all sign patterns; see also the simulated levels."""

from fractions import Fraction
from itertools import product

import pytest

from foundry_core.errors import FoundryError
from foundry_core.evaluation.statistics.walk import Look, WalkDesign, e_value, walk, walk_power

LINEAR, OBF = "linear", "obrien-fleming"
KNOWN = [
    ((4, 4, 4), LINEAR, (None, 8, 8), "21/512"),
    ((6, 6), LINEAR, (None, 8), "79/2048"),
    ((2,) * 6, LINEAR, (None, None, None, 8, 8, 8), "23/512"),
    ((3, 2, 4, 1, 3), LINEAR, (None, None, 9, 8, 9), "133/4096"),
    ((1,) * 12, LINEAR, (None,) * 6 + (7, None, None, 8, None, 8), "51/1024"),
    ((1,) * 12, OBF, (None,) * 7 + (8, None, 8, None, 8), "23/512"),
]


def undecided_looks(steps: tuple[int, ...]) -> list[Look]:
    """Wins and losses that balance, so that every look is reached."""
    looks, total = [], 0
    for number, step in enumerate(steps, 1):
        total += step
        looks.append(Look(rounds=number, wins=total // 2, losses=total - total // 2))
    return looks


@pytest.mark.parametrize(("steps", "spending", "boundaries", "error"), KNOWN)
def test_known_boundaries(steps, spending, boundaries, error):
    design = WalkDesign(rounds=len(steps), spending=spending)
    found = walk(design, undecided_looks(steps))
    assert found.boundaries == boundaries
    assert found.spent == pytest.approx(float(Fraction(error)), rel=1e-12)
    assert found.direction == 0


@pytest.mark.parametrize("spending", [LINEAR, OBF, "pocock"])
def test_the_level_over_all_sign_patterns_is_what_was_spent(spending):
    steps = (1, 2, 0, 3, 1, 2)
    design = WalkDesign(rounds=len(steps), spending=spending)
    rejected = 0
    for signs in product((1, 0), repeat=sum(steps)):
        looks, at, wins = [], 0, 0
        for number, step in enumerate(steps, 1):
            wins += sum(signs[at : at + step])
            at += step
            looks.append(Look(rounds=number, wins=wins, losses=at - wins))
        rejected += walk(design, looks).direction != 0
    error = walk(design, undecided_looks(steps)).spent
    assert rejected / 2 ** sum(steps) == pytest.approx(error, rel=1e-12)
    assert error <= 0.05


def test_stops_at_the_first_look_that_separates():
    looks = [Look(rounds=n, wins=n, losses=0) for n in range(1, 13)]
    found = walk(WalkDesign(rounds=12, spending="linear"), looks)
    assert (found.direction, found.rounds) == (1, 7)
    flipped = [Look(rounds=n, wins=0, losses=n) for n in range(1, 13)]
    assert walk(WalkDesign(rounds=12, spending="linear"), flipped).direction == -1


def test_peeking_before_the_end_separates_nothing_too_early():
    """12 of a budget of 200 rounds, 4 against 10 successes on shared scenarios, 6 discordant."""
    found = walk(WalkDesign(rounds=200), [Look(rounds=12, wins=0, losses=6)])
    assert found.direction == 0


def test_power_counts_one_direction_of_the_error_at_a_fair_coin():
    design = WalkDesign(rounds=6, spending="linear")
    assert walk_power(design, (2,) * 6, 0.5) == pytest.approx(23 / 512 / 2)
    assert walk_power(design, (2,) * 6, 1.0) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("wins", "losses", "expected"),
    [(5, 0, "63/8"), (7, 0, "429/16"), (10, 2, "4199/1024"), (12, 2, "22287/2048")],
)
def test_known_e_values(wins, losses, expected):
    assert e_value(wins, losses) == pytest.approx(float(Fraction(expected)), rel=1e-12)


@pytest.mark.parametrize(
    "looks",
    [
        [Look(rounds=2, wins=1, losses=0), Look(rounds=2, wins=2, losses=0)],
        [Look(rounds=2, wins=2, losses=0), Look(rounds=3, wins=1, losses=0)],
        [Look(rounds=13, wins=1, losses=0)],
    ],
)
def test_looks_that_cannot_be_are_refused(looks):
    with pytest.raises(FoundryError):
        walk(WalkDesign(rounds=12), looks)
