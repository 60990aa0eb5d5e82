"""Evaluations that are still running, with crashes: only complete rounds count, a pair that lost an
episode is no evidence, and crashes of one arm may not decide."""

from foundry_core.evaluation.comparison.arms import Arm, Pairing
from foundry_core.evaluation.comparison.pairs import Setting, pair_test
from foundry_core.evaluation.score import Evaluation
from foundry_core.evaluation.statistics.walk import Look, WalkDesign, walk

BUDGET = 40


def judged(a, b, tasks=("t",)):
    """a, b: task → outcomes by scenario, None for a crash; the rest is pending."""
    found = ({task: dict(enumerate(outcomes[task])) for task in tasks} for outcomes in (a, b))
    return paired(*found, tasks)


def paired(a, b, tasks=("t",)):
    """a, b: task → scenario → outcome."""
    arms = [
        Arm(name, {name: Evaluation(budget=BUDGET, outcomes=outcomes)})
        for name, outcomes in (("A", a), ("B", b))
    ]
    setting = Setting(tasks=tasks, asked=tasks, arms=arms, alpha=0.05, level=0.05)
    return pair_test(Pairing(*arms), setting)


def by_hand(discordant):
    """The walk over looks whose discordant pairs, all wins, are listed per round."""
    looks, wins = [], 0
    for rounds, count in enumerate(discordant, 1):
        wins += count
        looks.append(Look(rounds=rounds, wins=wins, losses=0))
    return walk(WalkDesign(rounds=BUDGET, alpha=0.05), looks)


def test_a_pair_that_lost_an_episode_is_not_discordant():
    """In every third round an arm crashed, in turn: those rounds are done and say nothing."""
    a = [None if i % 6 == 2 else True for i in range(30)]
    b = [None if i % 6 == 5 else False for i in range(30)]
    found = judged({"t": a}, {"t": b})
    expected = by_hand([int(i % 3 != 2) for i in range(30)])
    assert (found.test, found.direction) == ("exact walk", 1)
    assert expected.direction == 1
    assert expected.rounds > by_hand([1] * 30).rounds
    assert f"decided after {expected.rounds} rounds" in found.note
    assert "crashed" not in found.note  # as many in both arms
    assert judged({"t": b}, {"t": a}).direction == -1


def test_only_complete_rounds_count():
    """Task `u` lags behind, and a crash ends an episode while one that is not run yet ends the
    walk: four rounds are complete, in one of which only `t` has a pair."""
    a = {"t": [True] * 20, "u": [True, True, None, True]}
    b = {"t": [False] * 20, "u": [False] * 20}
    found = judged(a, b, ("t", "u"))
    expected = by_hand([2, 2, 1, 2])
    assert (expected.direction, found.direction) == (0, 0)
    assert "not decided after 4 rounds, go on" in found.note
    assert found.p is None
    more = {"t": [True] * 20, "u": [True, True, None] + [True] * 17}
    assert judged(more, b, ("t", "u")).direction == 1


def test_an_early_scenario_that_is_missing_holds_back_all_later_rounds():
    late = {i: True for i in range(20) if i}
    found = paired({"t": late}, {"t": dict.fromkeys(range(20), False)})
    assert (found.test, found.direction, found.p) == ("none: unfinished", 0, None)
    assert "only complete rounds" in found.note


def test_crashes_of_one_arm_that_would_turn_a_decision_forbid_it():
    """A wins every pair it finished, but a third of its episodes crashed, and of B's none: counted
    against A, 20 wins stand against no loss where B failed, and 10 losses where B succeeded."""
    b = [i % 3 == 2 for i in range(30)]
    a = [None if i % 3 == 2 else True for i in range(30)]
    found = judged({"t": a}, {"t": b})
    assert by_hand([int(i % 3 != 2) for i in range(30)]).direction == 1
    assert found.direction == 0
    assert "33.3 % of A and 0.0 % of B crashed" in found.note
    assert "counted against the better arm, they turn the verdict" in found.note
    assert "not decided after 30 rounds" in found.note


def test_crashes_of_one_arm_that_leave_a_decision_are_named():
    a = [None if i == 29 else True for i in range(30)]
    found = judged({"t": a}, {"t": [False] * 30})
    assert found.direction == 1
    assert "counted against the better arm, they leave the verdict" in found.note
