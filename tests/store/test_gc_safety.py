"""What `gc` must not remove: what an unreadable manifest, a run at work or a new link needs."""

import json
import os

import pytest

from flows import processes
from flows.cli import main
from flows.runs.engine import PipelineRun
from foundry_core.errors import FoundryError
from foundry_core.lineage import queries
from foundry_core.lineage.events import EventLog
from foundry_core.objects import StoreUnavailable
from foundry_core.store import gc, references
from foundry_core.store.local import LocalStore
from foundry_core.store.open import open_store
from tests.runs import Forked, prepared, run

EVERYTHING = {"keep_runs": 0, "grace_hours": 0}
GC = ("lineage", "gc", "--keep-runs", "0", "--grace-hours", "0")


@pytest.fixture(autouse=True)
def home(small_home):
    return small_home


def begin(*overrides, **options):
    under_way = PipelineRun(prepared(*overrides, **options))
    under_way.start()
    return under_way


def failing_read(monkeypatch, error):
    """Every read of the artifact of `measure` fails so."""
    read = LocalStore._parsed

    def parsed(store, kind, key):
        if kind == "measure":
            raise error
        return read(store, kind, key)

    monkeypatch.setattr(LocalStore, "_parsed", parsed)


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), StoreUnavailable("away")])
def test_a_manifest_that_cannot_be_read_stops_the_removal(monkeypatch, capsys, error):
    _, done = run()
    store = done.prepared.store
    references.set_alias(store, "score@v1", done.artifact("total"))
    before = store.artifacts()
    with monkeypatch.context() as patch:
        failing_read(patch, error)
        assert main([*GC, "--apply"]) == 2
    said = capsys.readouterr().err
    assert "away" in said or f"measure/{done.artifact('total').key[:12]}" in said
    assert said.count("\n") == 1
    assert store.artifacts() == before


def test_a_torn_manifest_is_named_and_nothing_goes(capsys):
    _, done = run()
    store, total = done.prepared.store, done.artifact("total")
    (store.path(total.kind, total.key) / "artifact.json").write_text('{"torn')
    before = store.artifacts()
    assert main([*GC, "--apply"]) == 2
    assert "foundry lineage verify" in capsys.readouterr().err
    assert main(list(GC)) == 0
    assert "`--apply` refuses" in capsys.readouterr().out
    assert store.artifacts() == before


def test_a_run_at_work_keeps_what_it_plans_between_its_stages():
    _, done = run()
    at_work = begin("second.word=zz")
    at_work.stage("second")
    for word in "ab":
        begin(f"first.word={word}").finish("succeeded")
    assert main(["lineage", "gc", "--apply", "--keep-runs", "1", "--grace-hours", "0"]) == 0
    assert at_work.stage("total").action == "run"
    at_work.finish("succeeded")
    assert processes.entries("run") == []
    assert main([*GC, "--apply"]) == 0
    assert done.prepared.store.artifacts() == []


def test_a_link_that_came_meanwhile_keeps_the_files_it_shares():
    _, done = run()
    store = done.prepared.store
    at_work = begin("first.comment=changed")
    at_work.stage("first")
    garbage = gc.find_garbage(store, **EVERYTHING)
    outcome = at_work.stage("model")
    assert outcome.artifact.linked_to == done.artifact("model").key
    removed = gc.remove(store, EventLog(store.events_uri), garbage)
    assert done.artifact("model").key not in {artifact.key for artifact in removed}
    assert store.state("train", outcome.artifact.key).status == "ok"
    assert store.state("train", done.artifact("model").key).status == "ok"


def test_who_links_to_what_goes_at_that_moment_builds(monkeypatch):
    _, done = run()
    store, model = done.prepared.store, done.artifact("model")
    at_work = begin("first.comment=changed")
    at_work.stage("first")
    link = LocalStore.link

    def gone_before(store, artifact):
        store.set_aside(model.kind, model.key)
        return link(store, artifact)

    monkeypatch.setattr(LocalStore, "link", gone_before)
    outcome = at_work.stage("model")
    assert (outcome.action, outcome.artifact.linked_to) == ("run", None)
    assert store.state("train", outcome.artifact.key).status == "ok"


def test_what_vanished_between_plan_and_run_is_said():
    run()
    planned = prepared("total.unit=k")
    store = planned.store
    garbage = gc.find_garbage(store, **EVERYTHING)
    gc.remove(store, EventLog(store.events_uri), garbage)
    late = PipelineRun(planned)
    late.start()
    with pytest.raises(FoundryError, match=r"removed from the store.*run again"):
        late.stage("total")
    late.finish("failed")
    assert set(run("total.unit=k")[0].values()) == {"run"}


def _die_before_telling():
    import foundry_core.execution.attempt

    foundry_core.execution.attempt.publish = lambda *arguments: os._exit(9)
    run()


@pytest.mark.parametrize("command", [(*GC, "--apply"), ("lineage", "rebuild")])
def test_what_a_killed_run_committed_is_told_before_it_can_go(home, command):
    forked = Forked(_die_before_telling)
    forked.process.join()
    store = open_store(str(home / "store"))
    ((_, key),) = store.artifacts()
    processes.entries("run")[0].forget()
    assert main(list(command)) == 0
    assert main(["lineage", "runs"]) == 0
    connection = queries.connect()
    assert queries.sql(connection, "select state from attempt") == [{"state": "committed"}]
    (artifact,) = queries.sql(connection, "select key, present from artifact")
    assert artifact == {"key": key, "present": command[1] == "rebuild"}
    connection.close()


def test_the_first_gc_after_a_killed_holder_removes(home, capsys):
    forked = Forked(_die_before_telling)
    forked.process.join()
    processes.entries("run")[0].forget()
    capsys.readouterr()
    assert main([*GC, "--apply", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["artifacts"]) == 1
    assert open_store(str(home / "store")).artifacts() == []


@pytest.mark.parametrize("hours", ["nan", "inf", "1e9", "-1"])
def test_a_bound_that_is_none_is_one_line(capsys, hours):
    assert main(["lineage", "gc", f"--grace-hours={hours}"]) == 2
    assert "must be ≥ 0" in capsys.readouterr().err
