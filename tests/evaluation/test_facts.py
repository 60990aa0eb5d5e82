"""What evaluations say they were asked, written, read back and held against each other."""

import pytest

from foundry_core.errors import FoundryError
from foundry_core.evaluation.facts import (
    EvaluationFacts,
    ImportedFrom,
    differences,
    read_facts,
)
from foundry_core.files import write_json

FULL = EvaluationFacts(
    benchmark="metaworld",
    options={"render": {"size": 32}},
    packages={"mujoco": "3.3.0"},
    hz=16.0,
    success="ever",
    max_steps={"push-v3": 150},
    first_scenario=0,
    episodes_per_task=25,
    execute_steps=4,
    seed=3,
    blank_images=False,
    policy="ab" * 32,
    imported=ImportedFrom(format="lbm", model="m"),
)


def test_what_is_written_is_read(tmp_path):
    write_json(tmp_path / "evaluation.json", {**FULL.to_json(), "budget": 25, "tasks": {}})
    assert read_facts(tmp_path) == FULL


def test_files_of_earlier_versions_and_of_other_kinds_say_less(tmp_path):
    write_json(tmp_path / "evaluation.json", {"budget": 5, "tasks": {}, "benchmark": "line"})
    assert read_facts(tmp_path) == EvaluationFacts(benchmark="line")
    write_json(tmp_path / "evaluation.json", {"hz": "fast"})
    with pytest.raises(FoundryError, match=r"evaluation\.json is of another form: hz"):
        read_facts(tmp_path)


def changed(**fields):
    return EvaluationFacts(**{**vars(FULL), **fields})


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"first_scenario": 100}, "first_scenario differs: 0 in a, c; 100 in b"),
        ({"success": "final"}, 'success differs: "ever" in a, c; "final" in b'),
        ({"execute_steps": 8}, "execute_steps differs: 4 in a, c; 8 in b"),
        ({"hz": 10.0}, "hz differs: 16.0 in a, c; 10.0 in b"),
        ({"packages": {"mujoco": "3.4"}}, 'packages.mujoco differs: "3.3.0" in a, c; "3.4" in b'),
        ({"max_steps": {"push-v3": 9}}, "max_steps.push-v3 differs: 150 in a, c; 9 in b"),
        (
            {"benchmark": "metaworld + line"},
            'benchmark differs: "metaworld" in a, c; "metaworld + line" in b',
        ),
    ],
)
def test_what_was_asked_differently_is_named_with_both_values(fields, line):
    assert differences({"a": FULL, "b": changed(**fields), "c": FULL}) == [line]


def test_what_is_not_known_or_no_question_differs_in_nothing():
    other = changed(seed=9, policy="cd" * 32, imported=None, episodes_per_task=9)
    assert differences({"a": FULL, "b": EvaluationFacts(), "c": other}) == []


def test_benchmarks_without_anything_in_common_are_refused():
    with pytest.raises(FoundryError, match="a was evaluated on benchmark metaworld, c on line"):
        differences({"a": FULL, "b": EvaluationFacts(), "c": changed(benchmark="line")})
