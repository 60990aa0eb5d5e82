"""Tables that may be looked at before their end, and the replay of a race."""

from dataclasses import replace

import pytest

from foundry_core.errors import FoundryError
from foundry_core.evaluation.comparison.compare import compare
from foundry_core.evaluation.comparison.grids import grids
from foundry_core.evaluation.comparison.race import finished_race, replay
from foundry_core.evaluation.comparison.report import write_comparison
from foundry_core.evaluation.comparison.result import read_comparison
from foundry_core.evaluation.comparison.sentences import ONE_TABLE, verdict
from foundry_core.evaluation.comparison.tables import markdown
from foundry_core.evaluation.design import Design
from foundry_core.evaluation.score import Evaluation, joined, read_evaluation, write_evaluation

DESIGN = Design(looks=4, spending="linear")


def evaluation(rate, rounds, *, first=0, budget=40, design=DESIGN, crashes=()):
    """Of every ten scenarios the first `rate` succeed, in two tasks."""
    known = {at: None if at in crashes else at % 10 < rate for at in range(first, first + rounds)}
    return Evaluation(budget=budget, outcomes={"open": known, "pull": known}, design=design)


def part(rate, number):
    """Ten rounds, the `number`-th of the budget."""
    return evaluation(rate, 10, first=10 * number, budget=10, design=None)


def parts(**played):
    """arm=(rate, parts)"""
    return {arm: [part(rate, at) for at in range(count)] for arm, (rate, count) in played.items()}


def test_unfinished_evaluations_are_judged_at_the_looks_of_their_design():
    arms = {"a": evaluation(9, 19), "b": evaluation(0, 19)}
    found = compare(arms, "a").against_base("b")
    assert (found.decision, found.test) == ("worse", "exact walk")
    assert found.note == "decided after 10 of 40 rounds (look 1 of 4)"
    assert found.pairs == 20, "what it says is about the rounds at which it was judged"
    early = {"a": evaluation(9, 9), "b": evaluation(0, 9)}
    assert compare(early, "a").against_base("b").decision == "undecided", "no look was due"


def test_the_level_is_that_of_the_design_and_its_family():
    arms = {"a": evaluation(7, 10), "b": evaluation(4, 10), "c": evaluation(7, 10)}
    assert compare(arms, "a").against_base("b").decision == "undecided"
    loose = Design(looks=4, alpha=0.5, spending="linear")
    arms = {name: replace(one, design=loose) for name, one in arms.items()}
    assert compare(arms, "a", 0.5).against_base("b").decision == "worse"


def test_the_end_is_the_last_look_and_no_test_of_its_own():
    a, b = evaluation(6, 40), evaluation(5, 40)
    b = replace(b, outcomes=b.outcomes | {"pull": a.outcomes["pull"]})
    found = compare({"a": a, "b": b}, "a")
    one = found.against_base("b")
    assert (one.decision, one.p_value, one.discordant) == ("not separated", None, 4)
    assert "not separated (by the sequential design)" in verdict(found)


def test_there_is_no_table_of_a_single_look():
    found = compare({"a": evaluation(9, 40), "b": evaluation(5, 40)}, "a", groups={"one": ["open"]})
    assert (found.groups, found.task_tables) == ({}, {})
    first, *_, last = grids(found, 100)
    assert "which share the level of the design" in first.title
    assert last.notes[0] == ONE_TABLE
    assert ONE_TABLE in markdown(found)
    assert "Holm" not in markdown(found)
    with pytest.raises(FoundryError, match="no evaluation has task 'shut'"):
        compare({"a": evaluation(9, 40), "b": evaluation(5, 40)}, "a", groups={"one": ["shut"]})


def test_what_was_saved_is_counted_once_and_is_not_pending(tmp_path):
    arms = {"a": evaluation(9, 40), "b": evaluation(9, 40), "c": evaluation(0, 10)}
    found = compare(arms, "a")
    played = found.sequential
    assert (played.played, played.stopped) == ({"a": 40, "b": 40, "c": 10}, {"c": 1})
    assert (played.episodes, played.saved) == (180, 60)
    assert found.overall["c"].counted.pending == 0
    assert "| rounds played | 40 of 40 | 40 of 40 | 10 of 40, stopped at look 1 |" in markdown(
        found
    )
    assert "left out 60 of 240 episodes" in verdict(found)
    write_comparison(tmp_path, found)
    assert read_comparison(tmp_path / "comparison.json") == found


def test_what_is_still_open_is_pending_and_not_saved():
    found = compare({"a": evaluation(9, 10), "b": evaluation(9, 10)}, "a")
    assert (found.sequential.stopped, found.sequential.saved) == ({}, 0)
    assert found.overall["b"].counted.pending == 60


def test_an_e_value_needs_no_budget():
    design = Design(spending="e-value", looks=4)
    arms = {"a": evaluation(9, 20, design=design), "b": evaluation(5, 20, design=design)}
    found = compare(arms, "a").against_base("b")
    assert (found.decision, found.test) == ("worse", "e-value")


def test_crashes_that_turn_a_decision_leave_none():
    few = {"a": evaluation(9, 10), "b": evaluation(0, 10, crashes=[9])}
    assert compare(few, "a").against_base("b").decision == "worse"
    many = {"a": evaluation(5, 10), "b": evaluation(0, 10, crashes=range(5, 10))}
    found = compare(many, "a").against_base("b")
    assert found.decision == "no verdict"
    assert found.note.endswith("crashes counted against the better arm turn it")


def test_who_only_crashed_until_the_look_has_no_verdict_before_it_has_an_outcome():
    arms = {"a": evaluation(9, 10), "b": evaluation(0, 10, crashes=range(10))}
    found = compare(arms, "a").against_base("b")
    assert (found.decision, found.difference) == ("no verdict", None)


def test_racing_for_the_best_says_what_it_promises():
    design = Design(looks=4, family="best")
    arms = {"a": evaluation(9, 10, design=design), "b": evaluation(0, 10, design=design)}
    found = compare(arms, "a")
    assert found.family == "best"
    assert "which keeps only the best safe" in verdict(found)


@pytest.mark.parametrize(
    ("other", "alpha", "base", "words"),
    [
        (Design(looks=2), 0.05, "a", "a was registered with .*looks 4.*, b with .*looks 2"),
        (None, 0.05, "a", "b with no design"),
        (DESIGN, 0.01, "a", "alpha 0.01 of the table, 0.05 of the design"),
        (DESIGN, 0.05, None, "holds every label against a base"),
    ],
)
def test_a_table_has_one_design(other, alpha, base, words):
    with pytest.raises(FoundryError, match=words):
        compare({"a": evaluation(9, 10), "b": evaluation(0, 10, design=other)}, base, alpha)


def test_the_design_is_in_the_file(tmp_path):
    found = evaluation(9, 40)
    write_evaluation(tmp_path, tmp_path / "records", found)
    assert read_evaluation(tmp_path) == found


def test_a_race_goes_on_where_it_was():
    first = replay(DESIGN, 40, parts(a=(9, 1), b=(9, 1), c=(0, 1)))
    assert (first.look, first.running, first.needed) == (2, ("a", "b"), {"a": 1, "b": 1, "c": 1})
    assert replay(DESIGN, 40, parts(a=(9, 0), b=(9, 1), c=(0, 1))).look == 1
    last = replay(DESIGN, 40, parts(a=(9, 4), b=(9, 4), c=(0, 1)))
    assert (last.look, last.running, last.needed) == (None, (), {"a": 4, "b": 4, "c": 1})


def test_a_race_that_is_over_is_judged_as_it_was_run():
    found = finished_race(DESIGN, 40, parts(a=(9, 4), b=(9, 4), c=(0, 1)))
    assert found["c"] == evaluation(0, 10)
    judged = compare(found, "a")
    assert judged.against_base("c").decision == "worse"
    assert judged.sequential.stopped == {"c": 1}


@pytest.mark.parametrize(
    ("played", "words"),
    [
        ({"a": (9, 4), "b": (9, 2), "c": (0, 1)}, "'b' stops after 2 parts"),
        ({"a": (9, 4), "b": (9, 4), "c": (0, 2)}, "'c' has 2 parts, .* ends it after look 1"),
        ({"a": (9, 2), "c": (0, 1)}, "'a' has 2 parts, .* ends it after look 1"),
    ],
)
def test_parts_that_contradict_the_race_are_refused(played, words):
    with pytest.raises(FoundryError, match=words):
        finished_race(DESIGN, 40, parts(**played))


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (part(9, 0), "scenario 0 of open is in two parts"),
        (replace(part(9, 1), outcomes={"open": {}}, budget=0), "another \\['open'\\]"),
        (replace(part(9, 1), budget=11), "not finished"),
        (replace(part(9, 1), criterion="held 5 steps"), "no stated rule in one part .*, by held"),
    ],
)
def test_parts_are_disjoint_finished_and_over_the_same_tasks(second, words):
    assert joined([part(9, 0), part(9, 1)]) == evaluation(9, 20, budget=20, design=None)
    with pytest.raises(FoundryError, match=words):
        joined([part(9, 0), second])


def test_crashes_of_all_parts_are_one_evaluation_s():
    one = replace(part(9, 0), causes={"solver": 2, "disk full": 1}, criterion="ever")
    found = joined([one, replace(part(9, 1), causes={"disk full": 2}, criterion="ever")])
    assert (found.causes, found.criterion) == ({"disk full": 3, "solver": 2}, "ever")
