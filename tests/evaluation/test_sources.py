"""Evaluations by path, by key, by name and by run, each under one label."""

import pytest

from foundry_core.errors import FoundryError
from foundry_core.evaluation.comparison.compare import compare
from foundry_core.evaluation.crashes import crash_cause
from foundry_core.evaluation.facts import EvaluationFacts
from foundry_core.evaluation.score import Evaluation, write_evaluation
from foundry_core.evaluation.sources import load_sources
from tests.evaluation.published import FAULT, lbm_tree


def no_store():
    raise AssertionError("paths need no store")


def put(folder, outcomes=None, **facts):
    (folder / "records").mkdir(parents=True)
    found = Evaluation(budget=2, outcomes=outcomes or {"add": {0: True, 1: False}})
    write_evaluation(folder, folder / "records", found, EvaluationFacts(**facts))
    return str(folder)


def labels(*sources):
    found, _ = load_sources(sources, no_store)
    assert all(one.label == label for label, one in found.items())
    return list(found)


def test_trees_files_and_folders(tmp_path):
    tree = lbm_tree(tmp_path / "tree", {"big": 30, "small": 10})
    ours = put(tmp_path / "ours")
    assert labels(str(tree), ours) == ["big", "small", "ours"]
    assert labels(str(tree / "small"), f"{ours}/evaluation.json") == ["small", "ours"]
    assert labels(f"a={tree / 'small'}", f"b={ours}") == ["a", "b"]
    assert labels(f"paper={tree}", ours) == ["paper/big", "paper/small", "ours"]


def test_a_path_with_an_equals_sign_is_a_path(tmp_path):
    assert labels(put(tmp_path / "lr=3")) == ["lr=3"]
    assert labels(f"a={tmp_path / 'lr=3'}") == ["a"]


def test_one_label_for_two_is_refused(tmp_path):
    trees = [str(lbm_tree(tmp_path / name, {"m": 3}, n=4)) for name in "ab"]
    with pytest.raises(FoundryError, match=r"'m' is both m of .*/a and m of .*/b") as refused:
        load_sources(trees, no_store)
    assert "LABEL=SOURCE" in refused.value.hint
    assert labels(trees[0], f"again={trees[1]}") == ["m", "again"]


@pytest.mark.parametrize("source", ["=x", "x="])
def test_half_a_label_is_refused(source):
    with pytest.raises(FoundryError, match="has no label or no source"):
        load_sources([source], no_store)


def test_what_was_asked_differently_is_a_line_and_names_are_aligned(tmp_path):
    tree = lbm_tree(tmp_path / "tree", {"m": 30})
    ours = put(tmp_path / "ours", first_scenario=100, benchmark="line")
    found, lines = load_sources([str(tree / "m"), ours], no_store)
    assert lines == ["first_scenario differs: 0 in m; 100 in ours"]
    assert set(found["m"].evaluation.outcomes) == {"add", "Sort"}
    other = put(tmp_path / "other", benchmark="metaworld")
    with pytest.raises(FoundryError, match="ours was evaluated on benchmark line, other on meta"):
        load_sources([ours, other], no_store)


def test_crashes_are_counted_by_cause_where_it_is_known(tmp_path):
    tree = lbm_tree(tmp_path / "tree", {"m": 30})
    ours = put(tmp_path / "ours", {"add": {0: None, 1: True}})
    found, _ = load_sources([str(tree), ours], no_store)
    crashes = compare({label: one.evaluation for label, one in found.items()}).crashes
    assert crashes == {"m": {crash_cause(FAULT): 2}, "ours": {"unknown": 1}}
