"""The records of an artifact as rows of its event: one writer for the live run and the rebuild."""

import pytest

from foundry_core.lineage.records import committed_event

MANIFEST = {"key": "k"}


def event(folder, **records):
    (folder / "records").mkdir(exist_ok=True)
    for name, text in records.items():
        (folder / "records" / f"{name}.jsonl").write_text(text)

    def record(name):
        path = folder / name
        return path if path.is_file() else None

    return committed_event(MANIFEST, record)


def test_records_become_rows(tmp_path):
    found = event(
        tmp_path,
        metrics='{"step": 2, "loss": 0.5, "note": "x"}\n\n',
        episodes='{"task": "push", "success": true, "more": 1}\n',
        scores='{"task": "", "n": 4, "successes": 3, "low": 0.2, "high": 0.9, "more": 1}\n',
    )
    assert found.artifact == MANIFEST
    assert found.metric_rows == [{"step": 2, "name": "loss", "value": 0.5}]
    (episode,), (score,) = found.episode_rows, found.score_rows
    assert episode["task"] == "push" and episode["crash"] is None and "more" not in episode
    assert (score["task"], score["n"], score["high"], score["rate"]) == ("", 4, 0.9, None)
    assert "more" not in score


def test_an_artifact_without_records_has_no_rows(tmp_path):
    found = event(tmp_path)
    assert (found.metric_rows, found.episode_rows, found.score_rows) == ([], [], [])


@pytest.mark.parametrize("text", ["{half", "[1]"])
def test_a_line_that_is_no_object_is_named(tmp_path, text):
    with pytest.raises(ValueError, match=r"metrics\.jsonl"):
        event(tmp_path, metrics=text)
