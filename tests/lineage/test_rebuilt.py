"""A key that was built twice: what the first run did with it stays true."""

import pytest
from history import History, digest, episodes, stage

from foundry_core.lineage.export import openlineage
from foundry_core.lineage.index import Index
from foundry_core.lineage.queries import INDEX_NAME, connect, diff, runs, show, sql

OLD, NEW = digest("old bytes"), digest("new bytes")


@pytest.fixture(params=["at once", "run by run"])
def rebuilt(request, log, tmp_path):
    """Runs a and c around b, which built the same evaluation again, by force."""
    history, index = History(log), Index(tmp_path / INDEX_NAME, log)
    evaluation = stage("eval", "evaluate", {"n": 10}, {})
    for run_id, content, successes in (("a", OLD, 9), ("b", NEW, 2)):
        history.start(run_id, [evaluation])
        created = f"2026-05-01T10:00:{history.ticks:02d}.500+00:00"
        scored = {"content": content, "metrics": {"rate": successes / 10}, "created": created}
        rows = episodes(successes, 10 - successes)
        history.build(run_id, evaluation, episode_rows=rows, **scored)
        history.finish(run_id)
        if request.param == "run by run":
            index.advance()
    history.start("c", [evaluation | {"action": "reuse"}])
    history.resolve("c", evaluation, "reuse", evaluation["key"], "recipe")
    history.finish("c")
    index.advance()
    with connect(tmp_path) as connection:
        yield connection


def test_every_run_keeps_the_scores_of_what_its_stages_came_out_as(rebuilt):
    rates = {run["run_id"]: run["scores"]["eval"]["success_rate"] for run in runs(rebuilt)}
    assert rates == {"a": 0.9, "b": 0.2, "c": 0.2}
    rows = sql(rebuilt, "select success_rate from eval_scores where task = 'all'")
    assert rows == [{"success_rate": 0.2}], "eval_scores has the latest"


def test_a_difference_of_runs_shows_what_came_out_otherwise_under_one_key(rebuilt):
    assert diff(rebuilt, "a", "b") == [
        {"place": "eval", "path": "content", "old": OLD, "new": NEW},
        {"place": "eval", "path": "metrics.rate", "old": 0.9, "new": 0.2},
    ]
    assert diff(rebuilt, "b", "c") == []


def test_openlineage_gives_each_attempt_the_version_it_made(rebuilt):
    made = [
        event["outputs"][0]["facets"]["version"]["datasetVersion"]
        for event in openlineage(rebuilt)
        if event["eventType"] == "COMPLETE"
    ]
    assert made == [OLD, NEW]


def test_show_lists_the_versions_of_a_key(rebuilt):
    (key,) = {row["key"] for row in sql(rebuilt, "select key from artifact")}
    versions = show(rebuilt, key)["versions"]
    assert [(v["run_id"], v["content"], v["latest"]) for v in versions] == [
        ("a", OLD, False),
        ("b", NEW, True),
    ]


def test_what_a_host_with_a_fast_clock_built_is_still_found(log, tmp_path):
    history = History(log)
    evaluation = stage("eval", "evaluate", {"n": 10}, {})
    history.start("a", [evaluation])
    late = {"created": "2026-05-01T11:00:00.000+00:00", "episode_rows": episodes(1, 1)}
    history.build("a", evaluation, **late)
    Index(tmp_path / INDEX_NAME, log).advance()
    with connect(tmp_path) as connection:
        assert runs(connection)[0]["scores"]["eval"]["success_rate"] == 0.5
