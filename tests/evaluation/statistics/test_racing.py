"""Who stops when, and what a pair may spend."""

import pytest

from foundry_core.errors import FoundryError
from foundry_core.evaluation.design import Design
from foundry_core.evaluation.statistics.detectable import walk_difference
from foundry_core.evaluation.statistics.racing import Race, RaceDesign
from foundry_core.evaluation.statistics.walk import Look, WalkDesign, e_value, walk, walk_power


def race(arms, rounds=40, started=0, **design):
    return Race(
        RaceDesign(design=Design(**design), rounds=rounds, arms=tuple(arms), started=started)
    )


def outcomes(rounds, **successes):
    """One task; an arm's first scenarios succeed."""
    return {
        arm: {("t", at): at < count for at in range(rounds)} for arm, count in successes.items()
    }


@pytest.mark.parametrize(
    ("family", "arms", "level"),
    [("base", 4, 0.05 / 3), ("pairs", 4, 0.05 / 6), ("best", 4, 0.1 / 3), ("base", 1, 0.05)],
)
def test_levels_of_a_pair(family, arms, level):
    assert Design(family=family).pair_level(arms) == pytest.approx(level)


def test_those_that_dropped_out_count_in_the_level():
    assert race("abc", started=5).design.walk.alpha == pytest.approx(0.05 / 4)


def test_looks_lie_at_equal_distances():
    assert Design(looks=4).ends(40) == (10, 20, 30, 40)
    assert Design(looks=3).ends(10) == (4, 7, 10)
    assert Design().ends(3) == (1, 2, 3)
    with pytest.raises(FoundryError, match="4 looks at 3 rounds"):
        Design(looks=4).ends(3)


def test_a_decided_variant_stops_and_the_base_plays_on_for_the_others():
    under_way = race(["base", "same", "bad"])
    assert under_way.look(20, outcomes(20, base=18, same=18, bad=1)) == ("base", "same")
    assert under_way.decided.keys() == {("base", "bad")}
    assert under_way.decided["base", "bad"].direction == 1


def test_the_base_stops_with_its_last_opponent():
    assert race(["base", "bad"]).look(20, outcomes(20, base=18, bad=1)) == ()


def test_racing_all_pairs_an_arm_stops_when_nothing_about_it_is_open():
    under_way = race("abc", family="pairs")
    assert under_way.look(20, outcomes(20, a=19, b=19, c=1)) == ("a", "b")
    assert under_way.decided.keys() == {("a", "c"), ("b", "c")}


def test_racing_for_the_best_ends_with_one():
    under_way = race("abc", family="best")
    assert under_way.look(20, outcomes(20, a=11, b=20, c=2)) == ()
    assert race("abc", family="best").look(20, outcomes(20, a=11, b=11, c=0)) == ("a", "b")


def test_an_e_value_separates_where_it_reaches_one_over_the_level():
    design = WalkDesign(rounds=1, spending="e-value")
    for wins in range(4, 12):
        found = walk(design, [Look(rounds=wins, wins=wins, losses=0)])
        assert (found.direction == 1) == (e_value(wins, 0) >= 20)
    assert found.spent <= 0.05
    assert e_value(11, 0) > 20 > e_value(10, 1)
    assert found.boundaries == (11,)


def test_an_e_value_knows_no_end():
    looks = [Look(rounds=at, wins=at // 2, losses=at - at // 2) for at in range(1, 40)]
    found = walk(WalkDesign(rounds=10, spending="e-value"), looks)
    assert (found.direction, found.rounds) == (0, 39)
    assert 0 < found.spent < 0.05


@pytest.mark.parametrize("spending", ["linear", "obrien-fleming", "e-value"])
def test_what_could_have_been_seen_has_80_percent_power(spending):
    design = WalkDesign(rounds=40, spending=spending)
    found = walk_difference(design, [15] * 4, 160)
    win = (1 + found / (60 / 160)) / 2
    assert walk_power(design, [15] * 4, win) == pytest.approx(0.8, abs=0.002)
    assert walk_difference(design, [1, 0, 1, 0], 160) is None
