"""`compare` and `verdict` read controls from a slot of their own."""

import pytest
from training_stages import run_stage

from foundry_core.evaluation.comparison.result import read_comparison
from foundry_core.evaluation.facts import EvaluationFacts
from foundry_core.evaluation.score import Evaluation, write_evaluation
from tasks.compare import Compare
from tasks.verdict import Verdict

FACTS = EvaluationFacts(criterion="success at any time within 100 steps")
SUCCESSES = {"policy": 20, "other": 8, "still": 10}


@pytest.fixture
def inputs(tmp_path):
    folders = {}
    for label, count in SUCCESSES.items():
        folders[label] = tmp_path / label
        (folders[label] / "records").mkdir(parents=True)
        evaluation = Evaluation(budget=20, outcomes={"open": {i: i < count for i in range(20)}})
        write_evaluation(folders[label], folders[label] / "records", evaluation, FACTS)
    control = {"still": folders.pop("still")}
    return {"evaluations": folders, "controls": control}


@pytest.mark.parametrize(
    ("kind", "recipe"),
    [
        (Compare, {"base": "policy"}),
        (Verdict, {"base": "policy", "variants": {"policy": ["policy"], "other": ["other"]}}),
    ],
)
def test_controls_are_read_and_stay_out_of_the_family(kind, recipe, inputs, tmp_path):
    metrics = run_stage(kind, tmp_path / "out", tmp_path / "scratch", recipe, inputs)
    assert set(metrics) == {"success_policy", "success_other", "n_policy", "n_other", "p_other"}
    found = read_comparison(tmp_path / "out" / "comparison.json")
    assert (found.size, found.criterion) == (1, FACTS.criterion)
    assert found.controls["still"]["open"].successes == 10
    text = (tmp_path / "out" / "verdict.txt").read_text()
    assert text.endswith("Doing nothing solves open in 10 of 20: its successes say little.\n")

    without = {"evaluations": inputs["evaluations"]}
    run_stage(kind, tmp_path / "bare", tmp_path / "scratch", recipe, without)
    assert "oing nothing" not in (tmp_path / "bare" / "verdict.txt").read_text()
