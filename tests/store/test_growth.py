"""What a home holds after many runs that only reused: few files, and every run still known."""

import json

import pytest

from flows.runs import folders
from flows.runs.engine import PipelineRun
from foundry_core.lineage import index
from foundry_core.lineage.chain import ChainCheck, events_of
from foundry_core.lineage.connection import attach
from foundry_core.lineage.index import LOOSE_EVENTS
from foundry_core.store import gc, references, run_records
from foundry_core.store.run_records import _LOOSE, all_runs, load_run, run_ids, write_run
from tests.runs import prepared, run


@pytest.fixture(autouse=True)
def home(small_home):
    return small_home


def files(home):
    return sum(path.is_file() for path in home.rglob("*"))


@pytest.mark.parametrize(
    ("count", "loose_events", "loose_runs"),
    [
        (24, 24, 6),
        pytest.param(100, LOOSE_EVENTS, _LOOSE, marks=pytest.mark.slow("a hundred runs")),
    ],
)
def test_cached_runs_leave_few_files_and_lose_no_fact(
    home, monkeypatch, count, loose_events, loose_runs
):
    monkeypatch.setattr(index, "LOOSE_EVENTS", loose_events)
    monkeypatch.setattr(index, "KEPT_LOOSE", loose_events // 8)
    monkeypatch.setattr(run_records, "_LOOSE", loose_runs)
    monkeypatch.setattr(run_records, "_KEPT", loose_runs // 3)
    _, first = run()
    before, plan, grown, ids = files(home), prepared(), [], [first.run_id]
    for _ in range(count):
        under_way = PipelineRun(plan)
        under_way.start()
        under_way.finish("succeeded")
        ids.append(under_way.run_id)
        grown.append(files(home) - before)
    bound = loose_events + loose_runs + 8  # and a few segments and packs
    assert max(grown[: count // 2]) < bound
    assert max(grown[count // 2 :]) < bound
    assert [path.name for path in (home / "runs").iterdir()] == [first.run_id]
    store, log = plan.store, first._events
    assert set(run_ids(store.documents)) == set(ids)
    assert {record["run_id"] for record in all_runs(store.documents)} == set(ids)
    assert load_run(store.documents, ids[0])["stages"].keys() == plan.specs.keys()
    references.pin(store, ids[0])
    assert gc.find_garbage(store, keep_runs=0, grace_hours=0).to_delete == ()
    with attach(home / "lineage.duckdb") as connection:
        (runs,) = connection.execute("select count(*) from pipeline_run").fetchone()
        (events,) = connection.execute("select count(*) from event").fetchone()
    assert runs == count + 1 and events == 18 + 6 * count
    assert loose_events // 8 <= len(log.loose()) <= loose_events
    check = ChainCheck()
    for event in events_of(log, check.problems):
        check.add(event)
    assert (check.result().problems, check.result().events) == ((), events)


def record(number, pipeline="p"):
    return {"run_id": f"r{number:04d}", "pipeline": pipeline, "stages": {"a": {"key": "k"}}}


def test_packed_runs_survive_a_process_killed_before_it_deletes_them(home, monkeypatch):
    documents = prepared().store.documents
    with monkeypatch.context() as patch:
        patch.setattr(type(documents), "delete", lambda *names: None)
        for number in range(120):
            write_run(documents, record(number))
    for number in range(120, 240):
        write_run(documents, record(number))
    assert run_ids(documents) == [f"r{number:04d}" for number in range(240)]
    assert [
        one["run_id"] for one in sorted(all_runs(documents), key=lambda one: one["run_id"])
    ] == (run_ids(documents))
    assert len(documents.names("runs")) <= 48 + 2
    assert len(documents.names("runs/packed")) <= 4


def test_the_last_run_of_a_pipeline_keeps_its_own_file(home):
    documents = prepared().store.documents
    write_run(documents, record(0, "rare"))
    for number in range(1, 100):
        write_run(documents, record(number))
    assert "r0000.json" in documents.names("runs")
    assert load_run(documents, "r0001") == record(1)


def test_a_pack_that_was_edited_is_named(home):
    documents = prepared().store.documents
    for number in range(60):
        write_run(documents, record(number))
    (name,) = documents.names("runs/packed")
    data = documents.read(f"runs/packed/{name}")
    documents.write(f"runs/packed/{name}", data.replace(b'"k"', b'"x"', 1))
    with pytest.raises(Exception, match="its digest is another"):
        run_ids(documents)


def test_old_folders_of_runs_go_and_those_at_work_stay(home, monkeypatch):
    from flows import processes

    monkeypatch.setattr(folders, "KEPT", 3)
    for number in range(6):
        (home / "runs" / f"r{number}" / "logs").mkdir(parents=True)
    processes.record("run", "r1")
    folders.prune()
    assert sorted(path.name for path in (home / "runs").iterdir()) == ["r1", "r3", "r4", "r5"]
    assert json.loads((home / "processes" / "run-r1.json").read_text())["id"] == "r1"
