"""However an attempt ends, it is closed as what it came to, and what it left is gone."""

import json
import math
import os

import pytest

import foundry_core.execution.attempt as attempt_module
from flows.runs.engine import PipelineRun
from foundry_core.execution.attempt import _begun_from, _keep_scratch_of
from foundry_core.execution.control import ChildResult
from foundry_core.execution.job import Interrupted, StageFailed
from foundry_core.execution.runner import execute
from foundry_core.objects import StoreUnavailable
from foundry_core.store.lease import LeaseLost
from foundry_core.store.local import LocalStore
from tests.runs import prepared, run


@pytest.fixture(autouse=True)
def home(small_home):
    return small_home


@pytest.fixture
def child(monkeypatch):
    """Puts a function (work, lease, folders) in the place of the stage's process."""

    def put(function):
        monkeypatch.setattr(attempt_module, "run_child", function)

    return put


def started():
    under_way = PipelineRun(prepared())
    under_way.start()
    return under_way


def ends(under_way):
    """(state, error) of every attempt, and the events whose commit is awaited."""
    log = under_way._events
    events = [log.read(name) for name in log.loose()]
    found = [e["data"] for e in events if e["type"] == "attempt_finished"]
    return [(data["state"], data["error"]) for data in found], log.blobs.names("outbox")


def left(under_way):
    store = under_way.prepared.store
    key = under_way.prepared.specs["first"].key
    return [path.name for path in (store.root / "work" / key / "attempts").glob("*")]


def raising(error):
    def stage(work, lease, folders):
        (folders.out / "half").write_text("x")
        raise error

    return stage


@pytest.mark.parametrize(
    ("error", "state", "message"),
    [
        (Interrupted("stopped"), "interrupted", ""),
        (KeyboardInterrupt(), "interrupted", ""),
        (OSError(5, "broken disk"), "failed", "broken disk"),
    ],
)
def test_an_attempt_that_ends_early_is_closed(child, error, state, message):
    child(raising(error))
    under_way = started()
    with pytest.raises(type(error)):
        under_way.stage("first")
    ((found, why),), waiting = ends(under_way)
    assert (found, waiting) == (state, [])
    assert message in why
    assert left(under_way) == []


def test_an_attempt_that_lost_its_lease_is_discarded_and_begun_again(child):
    real, lost = attempt_module.run_child, []

    def once(*arguments):
        if lost:
            return real(*arguments)
        lost.append(True)
        raise LeaseLost("gone")

    child(once)
    under_way = started()
    assert under_way.stage("first").action == "run"
    assert [state for state, _ in ends(under_way)[0]] == ["discarded", "committed"]


def test_a_lease_lost_after_the_stage_ended_commits_nothing(child, monkeypatch):
    real = attempt_module.run_child
    taken = []

    def lose(work, lease, folders):
        result = real(work, lease, folders)
        if not taken:
            taken.append(True)
            monkeypatch.setattr(lease, "verify", _lost)
        return result

    child(lose)
    under_way = started()
    under_way.stage("first")
    (first, second), waiting = ends(under_way)
    assert (first[0], second[0], waiting) == ("discarded", "committed", [])


def _lost():
    raise LeaseLost("gone")


def test_a_store_that_is_away_leaves_the_attempt_to_the_next(child, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(attempt_module, "run_child", raising(StoreUnavailable("away", "wait")))
        under_way = started()
        with pytest.raises(StoreUnavailable):
            under_way.stage("first")
    assert ends(under_way)[0] == []
    closed = []
    monkeypatch.setattr(LocalStore, "abandoned", lambda self, key: closed or ["a-killed-one"])
    monkeypatch.setattr(LocalStore, "discard", lambda self, key, name: closed.append(name))
    under_way.stage("first")
    assert ends(under_way)[0][0] == ("lost", "its process died")


def test_a_stage_that_wrote_nothing_has_failed(child):
    child(lambda work, lease, folders: ChildResult())
    under_way = started()
    with pytest.raises(StageFailed, match="it wrote no files"):
        under_way.stage("first")
    ((state, _),), waiting = ends(under_way)
    assert (state, waiting, left(under_way)) == ("failed", [], [])
    assert prepared().plan.stages["first"].reasons[0].category == "FAILED"


def test_another_that_was_committed_first_is_used(child, monkeypatch):
    monkeypatch.setattr(LocalStore, "commit", lambda *_, **__: False)
    under_way = started()
    under_way.stage("first")
    assert ends(under_way) == ([("discarded", "another attempt was committed first")], [])
    assert left(under_way) == []


def test_a_commit_is_told_with_its_attempt_and_rows(child):
    real = attempt_module.run_child

    def stage(work, lease, folders):
        result = real(work, lease, folders)
        (folders.out / "records").mkdir(exist_ok=True)
        (folders.out / "records" / "scores.jsonl").write_text(
            '{"task": "", "n": 4, "successes": 3}\n'
        )
        return result

    child(stage)
    under_way = started()
    outcome = under_way.stage("first")
    log = under_way._events
    events = {e["type"]: e["data"] for e in map(log.read, log.loose())}
    assert events["artifact_committed"]["score_rows"][0]["successes"] == 3
    finished = events["attempt_finished"]
    assert (finished["state"], finished["attempt"]) == ("committed", outcome.attempt)
    assert finished["cpu_seconds"] > 0 and finished["peak_memory"] > 1e6
    assert finished["gpu_seconds"] == 0


@pytest.mark.parametrize("job_ref", [None, "ray:job-a1"])
def test_what_ran_elsewhere_takes_its_log_into_the_store(child, job_ref):
    def stage(work, lease, folders):
        work.job.log.parent.mkdir(parents=True, exist_ok=True)
        work.job.log.write_text("printed there\n")
        (folders.out / "text.txt").write_text("x")
        return ChildResult(metrics={})

    child(stage)
    under_way = started()
    job = under_way._job("first", job_ref)
    store = under_way.prepared.store
    artifact = execute(job, store, under_way._events).artifact
    log = store.files_path(artifact) / "records" / "log.txt"
    assert log.is_file() == (job_ref is not None)
    assert job_ref is None or log.read_text() == "printed there\n"


def test_events_wait_before_the_commit_and_not_after(monkeypatch):
    seen = []
    commit = LocalStore.commit

    def look(self, artifact, *rest, **named):
        names = os.listdir(self.root / "events" / "outbox")
        (entry,) = [json.loads((self.root / "events" / "outbox" / n).read_text()) for n in names]
        seen.append([event[0] for event in entry["events"]])
        return commit(self, artifact, *rest, **named)

    monkeypatch.setattr(LocalStore, "commit", look)
    under_way = started()
    under_way.stage("first")
    assert seen == [["artifact_committed", "attempt_finished"]]
    assert ends(under_way)[1] == []


def test_a_scratch_is_kept_for_the_bytes_it_was_begun_from(tmp_path):
    scratch = tmp_path / "scratch"

    def begun(input_content_key, replaced=None):
        scratch.mkdir(exist_ok=True)
        _keep_scratch_of(scratch, _begun_from(input_content_key, replaced))
        kept = (scratch / "state").exists()
        (scratch / "state").write_text("")
        return kept

    assert [begun(key) for key in ("one", "one", "two", "one")] == [False, True, False, False]


def test_a_forced_stage_runs_though_an_equal_one_is_there():
    run()
    assert run("first.comment=other")[0]["model"] == "reuse"
    actions, _ = run("first.comment=third", force=("model",))
    assert actions["model"] == "run"


def test_an_equal_upstream_is_linked_to_and_not_built_again():
    _, before = run()
    actions, after = run("first.comment=other")
    assert (actions["first"], actions["model"]) == ("run", "reuse")
    assert after.outcomes["model"].how == "content"
    assert after.artifact("model").linked_to == before.artifact("model").key
    assert after.artifact("model").run_id == after.run_id


def test_results_travel_whole(tmp_path):
    result = ChildResult(metrics={"loss": math.nan, "n": 3}, error="", hint="")
    result.write(tmp_path)
    read = ChildResult.read(tmp_path)
    assert math.isnan(read.metrics["loss"]) and read.metrics["n"] == 3
    assert ChildResult.read(tmp_path / "nowhere") is None


def comment_changed():
    """A run whose model has new keys upstream and equal bytes, up to the model."""
    run()
    under_way = PipelineRun(prepared("first.comment=other"))
    under_way.start()
    under_way.stage("first")
    return under_way


def test_a_key_that_is_linked_closes_the_attempt_that_died_there(monkeypatch):
    under_way = comment_changed()
    monkeypatch.setattr(LocalStore, "abandoned", lambda self, key: ["a-killed-one"])
    assert under_way.stage("model").how == "content"
    assert ("lost", "its process died") in ends(under_way)[0]


def test_a_link_that_did_not_come_tells_nothing_and_the_stage_runs(monkeypatch):
    under_way = comment_changed()
    monkeypatch.setattr(LocalStore, "link", lambda self, artifact: False)
    assert under_way.stage("model").action == "run"
    log, key = under_way._events, under_way.prepared.specs["model"].key
    events = [log.read(name) for name in log.loose()]
    told = [e for e in events if e["type"] == "artifact_committed"]
    assert len([e for e in told if e["data"]["artifact"]["key"] == key]) == 1
    assert ends(under_way)[1] == []


def test_a_lease_lost_just_before_the_publication_commits_nothing(child, monkeypatch):
    real, enqueue, leases = attempt_module.run_child, attempt_module.enqueue, []

    def keep(work, lease, folders):
        leases.append(lease)
        return real(work, lease, folders)

    def then_lose(*arguments):
        if len(leases) == 1:
            monkeypatch.setattr(leases[0], "verify", _lost)
        return enqueue(*arguments)

    child(keep)
    monkeypatch.setattr(attempt_module, "enqueue", then_lose)
    under_way = started()
    under_way.stage("first")
    assert [state for state, _ in ends(under_way)[0]] == ["discarded", "committed"]
