"""A run that builds or reuses a comparison ends with what it says."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from flows.cli import main
from flows.reports.verdict import verdict_lines
from foundry_core.evaluation.comparison.compare import compare
from foundry_core.evaluation.comparison.result import as_json, read_comparison
from foundry_core.evaluation.comparison.sentences import verdict_sentences
from foundry_core.evaluation.score import Evaluation

# Every episode of `full` succeeds but the first of each task, of `short` but the first two.
BASE = "“full” succeeds in 4 of 6 episodes (67 %, 95 % interval 22 to 96 %)."


@pytest.fixture
def watched(small_home, monkeypatch):
    """Runs the pipeline of two trainings and their comparison: the exit code."""
    monkeypatch.setenv("FOUNDRY_KINDS", "tests.watched")
    monkeypatch.setenv("FOUNDRY_PIPELINES", str(Path(__file__).parents[2] / "watched"))
    return lambda *words: main(["run", "watched", *words])


def compared(home: Path) -> Path:
    (found,) = (home / "store" / "compare").glob("*/comparison.json")
    return found


def test_a_verdict_ends_the_run_that_made_it_and_those_that_reuse_it(watched, small_home, capsys):
    assert watched() == 0
    made = capsys.readouterr().out.splitlines()
    sentences = verdict_sentences(read_comparison(compared(small_home)))
    assert sentences[0] == BASE
    assert made[-len(sentences) :] == sentences
    assert watched() == 0
    assert capsys.readouterr().out.splitlines()[-len(sentences) :] == sentences
    assert watched("--only", "exam") == 0
    assert "succeeds in" not in capsys.readouterr().out


class Holding:
    """A store that gives this text as every comparison."""

    def __init__(self, folder, text):
        self._path = folder / "comparison.json"
        if text is not None:
            self._path.write_text(text)

    def read(self, kind, key):
        return SimpleNamespace(kind=kind, key=key)

    def file_path(self, artifact, name):
        return self._path if self._path.name == name and self._path.exists() else None


def ended(action="run", attempt="a1", kind="compare"):
    return {
        "stages": [{"name": "c", "kind": kind, "key": "k", "action": action, "attempt": attempt}]
    }


def found(label="full"):
    """The text of a comparison of two labels."""
    outcomes = {label: [False, True, True], "short": [False, False, True]}
    evaluations = {
        name: Evaluation(budget=3, outcomes={"push": dict(enumerate(solved))})
        for name, solved in outcomes.items()
    }
    return json.dumps(as_json(compare(evaluations, label)))


def test_only_a_comparison_that_was_settled_has_something_to_say(tmp_path):
    store = Holding(tmp_path, found())
    for settled in (ended(), ended("reuse", None), ended(kind="verdict")):
        assert verdict_lines(store, settled)[0].startswith("“full” succeeds in 2 of 3 episodes")
    for other in (ended("run", None), ended("blocked", None), ended(kind="evaluate")):
        assert verdict_lines(store, other) == []


@pytest.mark.parametrize(
    "text",
    [None, "{", "[]", "[" * 100_000, json.dumps(json.loads(found()) | {"overall": {}})],
    ids=["no file", "no JSON", "another form", "deep", "about nobody"],
)
def test_a_comparison_that_cannot_be_read_spoils_no_run(tmp_path, text):
    (said,) = verdict_lines(Holding(tmp_path, text), ended())
    assert said.startswith("the comparison cannot be shown: ")


def test_what_a_name_brings_along_does_not_reach_the_terminal(tmp_path):
    said = verdict_lines(Holding(tmp_path, found("a\x1b[2J")), ended())
    assert all(line.isprintable() for line in said) and "\\x1b[2J" in said[0]
