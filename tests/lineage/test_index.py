import contextlib
import gc
import multiprocessing
import os
import random
import shutil
import tempfile
from pathlib import Path
from unittest import mock

import duckdb
import pytest
from history import PROVENANCE, digest, manifest, stage, tell, uuid_of
from hypothesis import given, settings
from hypothesis import strategies as st

from foundry_core.errors import FoundryError
from foundry_core.lineage import index as index_module
from foundry_core.lineage import tail
from foundry_core.lineage.events import EventLog
from foundry_core.lineage.index import Index, attach
from foundry_core.lineage.segments import compact

# Views that are functions of the others, and slow to ask hundreds of times.
DERIVED = ("run_summary", "compute_spent_saved", "in_flight", "eval_scores", "ablation_effects")


def rows(path: Path) -> dict[str, list[str]]:
    """Everything in the index, less what tells how it came there."""
    found = {}
    with attach(path) as connection:
        views = connection.execute(
            "select schema_name || '.' || view_name from duckdb_views() "
            "where database_name = 'lineage' and schema_name in ('fact', 'main') and not internal"
        ).fetchall()
        for name in (name for (name,) in views if name.partition(".")[2] not in DERIVED):
            fetched = connection.execute(f"select * from {name}").fetchall()
            found[name] = sorted(map(repr, fetched))
    assert len(found) > 25
    return found


def conflicting_events() -> list[tuple]:
    """(type, data, run, time, id) with rivals for every entity: retold runs, rebuilt artifacts,
    removals before and after, moved aliases, attempts closed by others, ties in time."""
    old, new = stage("a", "x", {"v": 1}, {}), stage("b", "y", {"v": 2}, {})
    child = stage("c", "z", {"v": 3}, {"many": old, "other": new})
    told: list[tuple] = []

    def add(kind, data, run=None, at=None):
        second = len(told) if at is None else at
        told.append((kind, data, run, f"2026-05-01T10:00:{second:02d}.000000Z", uuid_of(len(told))))

    for stages in ([old], [old, new, child]):
        add("run_started", {"pipeline": "p", "stages": stages, "git": {}}, "r")
    add("stage_resolved", {"stage": "a", "key": old["key"], "action": "run"}, "r")
    add("stage_resolved", {"stage": "a", "key": old["key"], "action": "reuse"}, "r", at=2)
    attempt = {"key": old["key"], "attempt": "a1"}
    who = attempt | {"kind": "x", "stage": "a", "provenance": PROVENANCE}
    for run in ("r0", "r", "r1"):
        add("attempt_started", who, run)
        add("attempt_finished", attempt | {"state": "lost"})
    add("attempt_finished", attempt | {"state": "failed", "error": "x"}, "r1")
    add("attempt_finished", attempt | {"state": "committed", "seconds": 1.0}, "r1")
    for built in (old, child):
        for metrics in ({"loss": 1.0}, {"loss": 2.0, "tokens": 3}):
            artifact = manifest(built, "r") | {"metrics": metrics}
            steps = [{"step": i, "name": "loss", "value": 1.0} for i in range(len(metrics))]
            add("artifact_committed", {"artifact": artifact, "metric_rows": steps})
        add("artifact_removed", {"kind": "x", "key": built["key"], "reason": "gc"}, at=20)
    artifact = {"artifact": manifest(old, "r") | {"content": digest("rebuilt")}}
    add("artifact_committed", artifact, at=21)
    for key in (old["key"], None, child["key"]):
        add("alias_set", {"alias": "a@b", "key": key})
    for status in ("failed", "succeeded"):
        add("run_finished", {"status": status, "metrics": {}}, "r")
        data = {"ablation_id": "ab", "base_pipeline": "p"}
        add("ablation_started", data | {"variants": [{"variant": status, "overrides": []}]})
        effects = [{"variant": status, "path": "v", "old": 1, "new": 2, "success": 0.5, "n": 2}]
        add("ablation_finished", {"ablation_id": "ab", "status": status, "effects": effects})
    return told


def put(log: EventLog, event: tuple) -> None:
    kind, data, run, at, event_id = event
    log.append(kind, data, run, at=at, event_id=event_id)


@pytest.fixture(scope="module")
def expected_rows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("expected")
    log = EventLog(folder / "events")
    for event in conflicting_events():
        put(log, event)
    index = Index(folder / "lineage.duckdb", log)
    assert index.rebuild().events == len(conflicting_events())
    return rows(index.path)


@settings(max_examples=8, deadline=None)
@given(order=st.randoms(use_true_random=False), cuts=st.integers(1, 5), compacting=st.booleans())
def test_any_order_of_arrival_gives_the_rows_of_a_rebuild(expected_rows, order, cuts, compacting):
    told = conflicting_events()
    order.shuffle(told)
    with tempfile.TemporaryDirectory() as folder:
        log = EventLog(f"{folder}/events")
        index = Index(f"{folder}/lineage.duckdb", log)
        bounds = sorted(order.sample(range(1, len(told)), cuts))
        limit = order.choice([0, 5, 15, 400])
        for first, last in zip([0, *bounds], [*bounds, len(told)], strict=True):
            for event in told[first:last]:
                put(log, event)
            if compacting and order.random() < 0.5:
                compact(log, older_than_seconds=0, least=1)
            with mock.patch.object(index_module, "MAX_EVENTS", limit):
                assert index.advance().events == last - first
        assert index.advance().events == 0
        assert rows(index.path) == expected_rows
        index.rebuild()
        assert rows(index.path) == expected_rows


def test_the_latest_fact_stands(expected_rows, tmp_path):
    log = EventLog(tmp_path / "events")
    for event in conflicting_events():
        put(log, event)
    index = Index(tmp_path / "lineage.duckdb", log)
    index.advance()

    def ask(query):
        with attach(index.path) as connection:
            return connection.execute(query).fetchall()

    assert ask("select status from pipeline_run") == [("succeeded",)]
    assert ask("select stage from stage_spec order by position") == [("a",), ("b",), ("c",)]
    assert ask("select action from run_stage where stage = 'a'") == [("reuse",)]
    assert ask("select run_id, state from attempt order by run_id") == [
        ("r", "lost"),
        ("r0", "lost"),
        ("r1", "committed"),
    ]
    rebuilt = ask("select content, present from artifact where kind = 'x'")
    assert rebuilt == [(digest("rebuilt"), True)]
    assert ask("select present, removed_reason from artifact where kind = 'z'") == [(False, "gc")]
    assert ask("select count(*) from metric where step is not null") == [(2,)]
    assert ask("select count(*) from artifact_input") == [(2,)]
    assert ask("select alias, a.kind from alias join artifact a using (key)") == [("a@b", "z")]
    assert ask("select variant from ablation_variant") == [("succeeded",)]
    assert ask("select variant, old, new from ablation_effects") == [("succeeded", "1", "2")]
    packages = ask("select name, version from package order by name")
    assert packages == sorted(PROVENANCE["packages"].items())


def test_duplicates_in_segments_and_loose_files_count_once(log, tmp_path):
    tell(log)
    loose = {name: log.blobs.read(name) for name in log.loose()}
    before = Index(tmp_path / "before.duckdb", log)
    before.rebuild()
    assert compact(log, older_than_seconds=0, least=1) == len(loose)
    assert log.loose() == [] and len(log.segments()) == 1
    for number, (name, data) in enumerate(loose.items()):
        if number % 2:
            log.blobs.create(name, data)
    assert compact(log, older_than_seconds=0, least=1) == len(loose) // 2
    for name, data in loose.items():
        log.blobs.create(name, data)
    after = Index(tmp_path / "after.duckdb", log)
    assert after.rebuild().events == len(loose)
    assert rows(after.path) == rows(before.path)
    assert before.advance().events == 0


def test_a_long_log_compacts_itself_when_it_is_folded(log, tmp_path, monkeypatch):
    monkeypatch.setattr(index_module, "COMPACT_ABOVE", 510)
    monkeypatch.setattr(index_module, "COMPACT_AFTER_SECONDS", 0.0)
    index = Index(tmp_path / "lineage.duckdb", log)
    index.advance()
    fold(index, events=500)
    assert len(log.loose()) == 500
    before = rows(index.path)["main.event"]
    fold(index, events=11)
    assert (len(log.loose()), len(log.segments())) == (0, 1)
    assert index.advance().events == 0
    log.append("alias_set", {"alias": "new@one", "key": "k"})
    assert index.advance().events == 1
    after = rows(index.path)["main.event"]
    assert len(after) == 512 and set(after) > set(before)


def test_young_events_and_few_events_stay_loose(log):
    tell(log)
    told = log.loose()
    assert compact(log, older_than_seconds=0, least=len(told) + 1) == 0
    log.append("artifact_removed", {"kind": "x", "key": "k", "reason": "now"})
    assert compact(log, older_than_seconds=600, least=1) == len(told)
    assert len(log.loose()) == 1


def test_a_crash_before_the_deletion_of_compacted_events_is_harmless(log, tmp_path, monkeypatch):
    tell(log)
    count = len(log.loose())

    def die(name):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(log.blobs, "delete", die)
        with contextlib.suppress(KeyboardInterrupt):
            compact(log, older_than_seconds=0, least=1)
    assert (len(log.loose()), len(log.segments())) == (count, 1)
    assert Index(tmp_path / "lineage.duckdb", log).advance().events == count


def test_an_open_reader_keeps_what_it_opened(log, tmp_path):
    index = Index(tmp_path / "lineage.duckdb", log)
    tell(log)
    index.advance()
    with attach(index.path) as early, duckdb.connect(index.path, read_only=True) as raw:
        log.append("alias_set", {"alias": "new@one", "key": "k"})
        assert index.advance().events == 1
        query = "select count(*) from alias"
        assert early.execute(query).fetchone() == (1,)
        assert raw.execute(query).fetchone() == (2,), "opened by DuckDB itself, it follows"
        with attach(index.path) as late:
            assert late.execute(query).fetchone() == (2,)
        fold(index)
        assert early.execute(query).fetchone() == (1,)
        assert raw.execute(query).fetchone() == (2,)


def fold(index: Index, events: int = 1) -> None:
    """An advance that does not use the tail."""
    for number in range(events):
        index.log.append("alias_set", {"alias": f"filler@{number}", "key": None})
    before = index.path.stat().st_ino
    with mock.patch.object(index_module, "MAX_EVENTS", -1):
        assert index.advance().events == events
    assert index.path.stat().st_ino != before


def test_a_few_events_go_to_the_tail_and_many_are_folded(log, tmp_path):
    index = Index(tmp_path / "lineage.duckdb", log)
    tell(log)
    index.advance()
    before = tail.signature(index.path)
    log.append("alias_set", {"alias": "new@one", "key": "k"})
    assert index.advance().events == 1
    assert tail.signature(index.path) == before, "the index file itself was written"
    seen = rows(index.path)
    assert sum("new@one" in row for row in seen["main.alias"]) == 1
    assert index.advance().events == 0
    fold(index)
    unfilled = rows(index.path)
    assert unfilled["main.alias"] == seen["main.alias"]
    assert unfilled["main.artifact"] == seen["main.artifact"]


def test_a_long_event_and_a_new_package_list_are_folded_at_once(log, tmp_path):
    index = Index(tmp_path / "lineage.duckdb", log)
    tell(log)
    index.advance()
    steps = [{"step": i, "name": "loss", "value": 0.1} for i in range(8000)]
    log.append("artifact_committed", {"artifact": {"key": "k"}, "metric_rows": steps})
    before = tail.signature(index.path)
    index.advance()
    middle = tail.signature(index.path)
    attempt = {"key": "k", "kind": "x", "attempt": "a1", "stage": "s"}
    log.append("attempt_started", attempt | {"provenance": {"packages": {"new": "1.0"}}}, "r")
    index.advance()
    assert len({before, middle, tail.signature(index.path)}) == 3
    with attach(index.path) as connection:
        query = "select version from package where name = 'new'"
        assert connection.execute(query).fetchall() == [("1.0",)]


def test_a_lost_tail_is_named_by_readers_and_mended_by_the_next_advance(log, tmp_path):
    index = Index(tmp_path / "lineage.duckdb", log)
    tell(log)
    index.advance()
    log.append("alias_set", {"alias": "new@one", "key": "k"})
    index.advance()
    before = rows(index.path)
    for path in tail.Tails(index.path).folder.glob("*.jsonl"):
        path.unlink()
    with pytest.raises(FoundryError, match="lost its tail"):
        attach(index.path)
    index.advance()
    assert rows(index.path) == before


def test_a_copied_home_can_be_read_where_it_is(log, tmp_path):
    home = tmp_path / "home"
    index = Index(home / "lineage.duckdb", log)
    tell(log)
    index.advance()
    log.append("alias_set", {"alias": "new@one", "key": "k"})
    index.advance()
    before = rows(index.path)
    shutil.copytree(home, tmp_path / "copy")
    shutil.rmtree(home)
    assert rows(tmp_path / "copy" / "lineage.duckdb") == before


def test_readers_leave_no_pins_behind(log, tmp_path):
    index = Index(tmp_path / "lineage.duckdb", log)
    index.advance()
    connection = attach(index.path)
    folder = tail.Tails(index.path).folder
    assert len(list(folder.glob("*.pin"))) == 1
    connection.close()
    del connection
    gc.collect()
    assert list(folder.glob("*.pin")) == []


def test_a_writer_killed_at_work_leaves_the_old_index(log, tmp_path):
    index = Index(tmp_path / "lineage.duckdb", log)
    tell(log)
    index.advance()
    before = rows(index.path)
    log.append("alias_set", {"alias": "new@one", "key": "k"})
    child = os.fork()
    if child == 0:
        os.replace = lambda *_: os._exit(9)
        with contextlib.suppress(BaseException):
            index.advance()
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert rows(index.path) == before
    assert index.advance().events == 1
    assert [p.name for p in tmp_path.iterdir() if "draft" in p.name] == []


def _advance(path: str, root: str, number: int) -> None:
    log = EventLog(root)
    for step in range(3):
        alias = {"alias": f"writer@{number}-{step}", "key": "k"}
        log.append("alias_set", alias)
        Index(path, log).advance()


def test_processes_advance_one_index_without_loss(log, tmp_path):
    path = tmp_path / "lineage.duckdb"
    context = multiprocessing.get_context("fork")
    arguments = [(str(path), log.blobs.uri, number) for number in range(4)]
    workers = [context.Process(target=_advance, args=given) for given in arguments]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    with attach(path) as connection:
        assert connection.execute("select count(*) from alias").fetchone() == (12,)


def test_a_damaged_event_is_named_and_the_rest_is_read(log, tmp_path):
    tell(log)
    name = log.loose()[3]
    data = log.blobs.read(name)
    log.blobs.delete(name)
    log.blobs.create(name, data[: len(data) // 2])
    index = Index(tmp_path / "lineage.duckdb", log)
    result = index.advance()
    assert result.events == len(log.loose()) - 1
    assert [problem.partition(":")[0] for problem in result.unreadable] == [name]
    assert compact(log, older_than_seconds=0, least=1) == result.events
    assert log.loose() == [name], "a damaged event must not be deleted"
    log.blobs.delete(name)
    log.blobs.create(name, data)
    mended = index.advance()
    assert (mended.events, mended.unreadable) == (1, ())


@pytest.mark.parametrize("damage", ["deleted", "truncated", "other log", "other schema"])
def test_an_index_that_cannot_be_used_is_rebuilt(log, tmp_path, damage):
    tell(log)
    index = Index(tmp_path / "lineage.duckdb", log)
    index.advance()
    before = rows(index.path)
    if damage == "deleted":
        index.path.unlink()
    elif damage == "truncated":
        os.truncate(index.path, 5000)
    else:
        column, value = ("log", "'/elsewhere'") if "log" in damage else ("schema_version", "0")
        with duckdb.connect(index.path) as connection:
            connection.execute(f"update meta set {column} = {value}")
    assert index.advance().events == len(log.loose())
    assert rows(index.path) == before


class MemoryFiles:
    """Files without local paths, as in an object store."""

    def __init__(self):
        self.root = f"memory://{random.random()}"
        self._data = {}

    def create(self, name, data):
        return self._data.setdefault(name, data) is data

    def read(self, name):
        if name not in self._data:
            raise FileNotFoundError(name)
        return self._data[name]

    def names(self, folder):
        below = f"{folder}/" if folder else ""
        found = (name.removeprefix(below) for name in self._data if name.startswith(below))
        return sorted({name.partition("/")[0] for name in found})

    def delete(self, name):
        self._data.pop(name, None)

    def local(self, name):
        return None


def test_a_remote_log_is_indexed_and_compacted_like_a_local_one(log, tmp_path):
    remote = EventLog(MemoryFiles())
    tell(remote)
    tell(log)
    near, far = Index(tmp_path / "near.duckdb", log), Index(tmp_path / "far.duckdb", remote)
    near.advance()
    assert compact(remote, older_than_seconds=0, least=1) == len(log.loose())
    far.advance()
    assert rows(near.path) == rows(far.path)
