"""The records of an artifact as rows of its event: one writer for the live run and the rebuild."""

import pytest

from foundry_core.lineage.records import committed_event

MANIFEST = {"key": "k"}


def event(folder, **records):
    (folder / "records").mkdir(exist_ok=True)
    for name, text in records.items():
        (folder / "records" / f"{name}.jsonl").write_bytes(text.encode(errors="surrogateescape"))

    def record(name):
        path = folder / name
        return path if path.is_file() else None

    found, problems = committed_event(MANIFEST, record)
    return (found, problems) if problems else found


def test_records_become_rows(tmp_path):
    found = event(
        tmp_path,
        metrics='{"step": 2, "loss": 0.5, "note": "x"}\n\n',
        episodes='{"task": "push", "success": true, "more": 1}\n',
        scores='{"task": "", "n": 4, "successes": 3, "low": 0.2, "high": 0.9, "more": 1}\n',
        measures='{"task": "t", "name": "acc", "value": 0.5, "n": 2, "more": 1}\n',
    )
    assert found.artifact == MANIFEST
    assert found.metric_rows == [{"step": 2, "name": "loss", "value": 0.5}]
    (episode,), (score,) = found.episode_rows, found.score_rows
    assert episode["task"] == "push" and episode["crash"] is None and "more" not in episode
    assert (score["task"], score["n"], score["high"], score["rate"]) == ("", 4, 0.9, None)
    assert "more" not in score
    assert found.measure_rows == [
        {"task": "t", "name": "acc", "value": 0.5, "n": 2, "low": None, "high": None}
    ]


def test_an_artifact_without_records_has_no_rows(tmp_path):
    found = event(tmp_path)
    assert (found.metric_rows, found.episode_rows, found.score_rows) == ([], [], [])


BAD = {
    "half a line": ("metrics", '{"step": 2', "metrics.jsonl, line 2: "),
    "Python's words": ("metrics", "{'loss': nan}", "metrics.jsonl, line 2: "),
    "a list": ("metrics", "[1]", "no JSON object"),
    "other bytes": ("metrics", '{"step": "\udcff"}', "metrics.jsonl, line 2: "),
    "a step in words": ("metrics", '{"step": "two"}', "step = 'two', int is expected"),
    "true as a step": ("metrics", '{"step": true}', "step = True, int is expected"),
    "a number of no column": ("metrics", '{"step": 1e400}', "step = inf"),
    "a huge step": ("metrics", f'{{"step": {10**30}}}', "step = 1000"),
    "without end": ("metrics", "[" * 100_000, "metrics.jsonl, line 2: "),
    "success in words": ("episodes", '{"success": "yes"}', "success = 'yes', bool is expected"),
    "a count in words": ("scores", '{"n": "4"}', "n = '4', int is expected"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_line_that_cannot_be_read_is_named_and_costs_only_itself(tmp_path, name):
    record, line, problem = BAD[name]
    good = {
        "metrics": '{"step": 1, "loss": 0.5}',
        "episodes": '{"task": "a"}',
        "scores": '{"n": 4}',
    }
    text = "\n".join([good[record], line, good[record], ""])
    found, problems = event(tmp_path, **{record: text})
    assert len(problems) == 1 and problem in problems[0]
    rows = {"metrics": found.metric_rows, "episodes": found.episode_rows}
    assert len(rows.get(record, found.score_rows)) == 2


def test_a_loss_that_diverged_is_a_row(tmp_path):
    (row,) = event(tmp_path, metrics='{"step": 1, "loss": NaN}').metric_rows
    assert row["name"] == "loss" and row["value"] != row["value"]
