"""A forced stage: the artifact before it serves until its successor is there."""

import json
import os

import pytest

import foundry_core.execution.attempt
from flows.runs.engine import PipelineRun
from foundry_core.execution.control import ChildResult
from foundry_core.lineage.connection import attach
from foundry_core.store import gc
from tests.faults import checks
from tests.runs import Forked, prepared, run

ALL_REUSED = dict.fromkeys(("first", "second", "model", "total"), "reuse")


@pytest.fixture(autouse=True)
def home(small_home):
    return small_home


def forced(name):
    under_way = PipelineRun(prepared(force=(name,)))
    under_way.start()
    return under_way


def test_a_forced_stage_that_fails_costs_nothing(monkeypatch):
    _, done = run()
    store, model = done.prepared.store, done.artifact("model")
    again = forced("model")
    with monkeypatch.context() as patch:
        patch.setattr(
            foundry_core.execution.attempt,
            "run_child",
            lambda *a: ChildResult(error="no memory"),
        )
        with pytest.raises(Exception, match="no memory"):
            again.stage("model")
    again.finish("failed")
    assert store.read(model.kind, model.key) == model
    assert store.state(model.kind, model.key).status == "ok"


def test_readers_find_the_old_one_until_the_new_one_is_there(monkeypatch, home, tmp_path):
    _, done = run()
    store, first = done.prepared.store, done.artifact("first")
    seen = []
    child = foundry_core.execution.attempt.run_child

    def looks(*arguments):
        seen.append((store.files_path(first) / "text.txt").exists())
        return child(*arguments)

    monkeypatch.setattr(foundry_core.execution.attempt, "run_child", looks)
    again = forced("first")
    outcome = again.stage("first")
    again.finish("succeeded")
    assert seen == [True]
    assert (outcome.action, outcome.artifact.content) == ("run", first.content)
    assert store.read(first.kind, first.key).created > first.created
    assert store.verify(first.kind, first.key).status == "ok"
    assert not (home / "store" / "work" / first.key).exists()
    assert checks.lineage_differences(home, str(home / "store" / "events"), tmp_path) == []


def _die_between_the_renames():
    rename = os.rename

    def dying(source, target):
        if "/work/" in str(source) and target.parent.name == "emit":
            os._exit(9)
        rename(source, target)

    under_way = forced("first")
    os.rename = dying
    under_way.stage("first")


@pytest.mark.parametrize("by", ["run", "gc"])
def test_killed_at_the_swap_the_old_one_is_put_back(home, by):
    _, done = run()
    store, first = done.prepared.store, done.artifact("first")
    forked = Forked(_die_between_the_renames)
    forked.process.join()
    assert forked.process.exitcode == 9
    assert store.read(first.kind, first.key) is None
    assert store.sweep(lambda key: False, older_than=-1, apply=True) > 0
    if by == "gc":
        gc.tidy(store, done._events)
    else:
        assert run("total.unit=k")[0] == ALL_REUSED | {"total": "run"}
    assert store.read(first.kind, first.key) == first
    assert store.verify(first.kind, first.key).status == "ok"


def _die_in_the_stage():
    foundry_core.execution.attempt.run_child = lambda *arguments: os._exit(9)
    forced("model").stage("model")


def test_a_forced_attempt_that_was_killed_is_closed_by_the_next_run(home, tmp_path):
    run()
    forked = Forked(_die_in_the_stage)
    forked.process.join()
    _, after = run()
    with attach(home / "lineage.duckdb") as connection:
        rows = connection.execute("select stage, state from attempt order by all").fetchall()
    assert [row for row in rows if row[0] == "model"] == [("model", "committed"), ("model", "lost")]
    assert after._events.blobs.names("outbox") == []
    again = forced("model")
    again.stage("model")
    again.finish("succeeded")
    assert after._events.blobs.names("outbox") == []
    with attach(home / "lineage.duckdb") as connection:
        rows = connection.execute("select state from attempt where stage = 'model'").fetchall()
    assert sorted(state for (state,) in rows) == ["committed", "committed", "lost"]


def test_the_scratch_of_an_interrupted_forced_training_is_resumed_and_no_other(monkeypatch):
    _, done = run()
    store, model = done.prepared.store, done.artifact("model")
    left = store.root / "work" / model.key / "scratch"
    left.mkdir(parents=True)
    (left / "state.json").write_text(json.dumps({"step": 5, "weight": -1.0}))
    found = []

    def interrupted(work, lease, folders):
        found.append(sorted(path.name for path in folders.scratch.iterdir()))
        (folders.scratch / "mine").write_text("")
        return ChildResult(error="stopped")

    monkeypatch.setattr(foundry_core.execution.attempt, "run_child", interrupted)
    for _ in range(2):
        again = forced("model")
        with pytest.raises(Exception, match="stopped"):
            again.stage("model")
        again.finish("failed")
    assert found == [[], ["mine"]]


def test_what_is_forced_and_corrupt_is_out_of_service_at_once(monkeypatch):
    _, done = run()
    store, first = done.prepared.store, done.artifact("first")
    (store.files_path(first) / "text.txt").write_text("harmed")
    again = forced("first")
    monkeypatch.setattr(
        foundry_core.execution.attempt, "run_child", lambda *a: ChildResult(error="no")
    )
    with pytest.raises(Exception, match="no"):
        again.stage("first")
    assert store.read(first.kind, first.key) is None
