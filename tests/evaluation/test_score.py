"""One score from the episodes to every reader."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundry_core.errors import FoundryError
from foundry_core.evaluation.facts import EvaluationFacts
from foundry_core.evaluation.score import (
    EpisodeResult,
    Evaluation,
    Score,
    read_evaluation,
    total,
    write_evaluation,
)
from foundry_core.files import read_json

counts = st.builds(
    lambda successes, failures, crashed, pending: Score(
        n=successes + failures, successes=successes, crashed=crashed, pending=pending
    ),
    *[st.integers(0, 500)] * 4,
)


def test_known_interval():
    score = Score(n=200, successes=160, crashed=3)
    assert score.rate == 0.8
    assert score.interval == pytest.approx((0.737774, 0.853106), abs=1e-6)


def test_a_sentence_has_count_rate_and_interval():
    assert Score(n=20, successes=5, crashed=2).sentence() == (
        "success 5 of 20, 25.0 % (95 % interval 8.7 to 49.1), 2 crashed"
    )
    assert Score(n=2).sentence() == "success 0 of 2, 0.0 % (95 % interval 0.0 to 84.2)"


def test_nothing_counted_says_nothing():
    score = Score(crashed=4, pending=2)
    assert "unknown: no episode came to its end, 4 crashed, 2 pending" in score.sentence()
    assert score.rate is None
    assert score.interval == (0.0, 1.0)
    assert score.to_json() == {
        "n": 0, "successes": 0, "crashed": 4, "pending": 2, "rate": None, "low": 0.0, "high": 1.0,
    }  # fmt: skip


@given(counts, counts)
def test_sums_and_json_lose_nothing(one, other):
    whole = one + other
    assert whole == total([other, one])
    assert (whole.n, whole.pending) == (one.n + other.n, one.pending + other.pending)
    assert Score.from_json(whole.to_json()) == whole
    assert Score.from_json(whole.to_json()).to_json() == whole.to_json()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"n": 3, "successes": 4}, "4 successes in 3 episodes"),
        ({"n": -1}, "n = -1 is no count"),
        ({"n": 2, "crashed": -1}, "crashed = -1 is no count"),
        ({"n": 2.0}, "no count"),
        ({"n": True}, "no count"),
    ],
)
def test_counts_that_cannot_be_are_refused(wrong, words):
    with pytest.raises(FoundryError, match=words):
        Score(**wrong)


def test_one_writer_for_the_file_the_rows_and_the_metrics(tmp_path):
    found = Evaluation(
        budget=5,
        outcomes={
            "pull": {3: True, 4: False, 5: False, 6: False},
            "open": {3: True, 4: None, 5: True},
        },
        causes={"solver": 1},
    )
    out, records = tmp_path, tmp_path / "records"
    metrics = write_evaluation(out, records, found, EvaluationFacts(benchmark="line"))
    assert metrics == {
        "success_rate": 0.5,
        "n": 6,
        "successes": 3,
        "crashed": 1,
        "pending": 3,
        "success_rate/pull": 0.25,
        "success_rate/open": 1.0,
    }
    document = read_json(out / "evaluation.json")
    assert (document["benchmark"], document["budget"]) == ("line", 5)
    assert document["total"] == Score(n=6, successes=3, crashed=1, pending=3).to_json()
    scenarios = document["tasks"]["open"].pop("scenarios")
    assert scenarios == {"success": [3, 5], "failure": [], "crash": [4]}
    rows = [json.loads(line) for line in (records / "scores.jsonl").read_text().splitlines()]
    assert [row["task"] for row in rows] == ["open", "pull", ""]
    assert rows[0] == {"task": "open", **document["tasks"]["open"]}
    assert rows[2] == {"task": "", **document["total"]}
    assert read_evaluation(out) == found


def test_what_was_not_run_is_pending():
    plans = [EpisodeResult(task="pull", scenario=i, success=None, pending=True) for i in range(3)]
    done = EpisodeResult(task="pull", scenario=0, success=True)
    found = Evaluation.of([done, *plans[1:]], 4)
    assert found.scores == {"pull": Score(n=1, successes=1, pending=3)}


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        '{"budget": 1, "tasks": {"a": {"n": 1}}}',
        '{"budget": 1, "tasks": {"a": {"scenarios": {"success": [1]}}}}',
        '{"budget": 1, "tasks": {"a": {"scenarios": 3}}}',
        "no JSON",
    ],
)
def test_files_of_another_form_are_refused_with_their_name(tmp_path, text):
    (tmp_path / "evaluation.json").write_text(text)
    with pytest.raises(FoundryError, match=r"evaluation\.json"):
        read_evaluation(tmp_path)
