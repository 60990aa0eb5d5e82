"""Equal tasks have equal names, however their harness spells them."""

import pytest

from foundry_core.errors import FoundryError
from foundry_core.evaluation.facts import EvaluationFacts
from foundry_core.evaluation.score import Evaluation, write_evaluation
from foundry_core.evaluation.together import one_spelling, read_together


def evaluation(*tasks):
    return Evaluation(budget=1, outcomes={task: {i: True} for i, task in enumerate(tasks)})


def test_the_benchmarks_spelling_is_kept():
    found = one_spelling({"a": evaluation("PushV3", "Wait"), "b": evaluation("push-v3", "Wait")})
    assert found["a"].outcomes == {"push-v3": {0: True}, "Wait": {1: True}}
    assert found["b"] == evaluation("push-v3", "Wait")


def test_names_that_one_evaluation_tells_apart_stay_apart():
    apart = {"a": evaluation("push-v3", "push_v3"), "b": evaluation("PushV3")}
    assert one_spelling(apart) == apart


def test_stages_read_them_together(tmp_path):
    folders = {}
    for label, task, benchmark in (("a", "push-v3", "metaworld"), ("b", "PushV3", None)):
        folders[label] = tmp_path / label
        (folders[label] / "records").mkdir(parents=True)
        facts = EvaluationFacts(benchmark=benchmark)
        write_evaluation(folders[label], folders[label] / "records", evaluation(task), facts)
    assert {tuple(one.outcomes) for one in read_together(folders).values()} == {("push-v3",)}
    facts = EvaluationFacts(benchmark="line")
    write_evaluation(folders["b"], folders["b"] / "records", evaluation("PushV3"), facts)
    with pytest.raises(FoundryError, match="benchmark metaworld, b on line"):
        read_together(folders)
