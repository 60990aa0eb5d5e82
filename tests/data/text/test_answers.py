"""Normalised exact match and the VQA rule, against values worked out by hand."""

import pytest

from foundry_core.data.text.answers import exact_match, normalised, token_f1, vqa_score


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("The Red Drawer.", "red drawer"),
        ("two", "2"),
        ("It's  an   apple!", "its apple"),
        ("1,200", "1200"),
        ("3.5", "3.5"),
        ("left-hand side", "left hand side"),
        ("the", ""),
    ],
)
def test_normalised(said, found):
    assert normalised(said) == found
    assert normalised(found) == found


def test_exact_match_is_of_any_reference():
    assert exact_match("A drawer", ["handle", "drawer."])
    assert not exact_match("drawers", ["drawer"])
    assert not exact_match("drawer", [])


@pytest.mark.parametrize(
    ("same", "score"),
    # of ten people: leaving out each in turn, min(1, others who agree / 3)
    [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)],
)
def test_vqa_rule_of_ten_people(same, score):
    references = ["Yes"] * same + ["no"] * (10 - same)
    assert vqa_score("yes.", references) == pytest.approx(score)


def test_few_references_are_matched_exactly():
    assert vqa_score("two", ["2"]) == 1.0
    assert vqa_score("two", ["2", "3"]) == 1.0
    assert vqa_score("four", ["2", "3", "5"]) == 0.0


def test_token_f1_counts_common_words():
    assert token_f1("hand 0731, the goal 1220.", "Hand 0731, goal 1221") == pytest.approx(3 / 4)
    # One "a b" of three words against two: precision 2/3, recall 1.
    assert token_f1("x y y", "y x") == pytest.approx(0.8)
    assert token_f1("", "") == 1.0
    assert token_f1("x", "") == 0.0
