import contextlib
import multiprocessing
import os
import random
import shutil
import tempfile
from pathlib import Path

import duckdb
import pytest
from history import PROVENANCE, digest, manifest, planned, scores, stage, uuid_of, write_history
from hypothesis import given, settings
from hypothesis import strategies as st

from foundry_core.lineage import index as index_module
from foundry_core.lineage.connection import attach
from foundry_core.lineage.event_types import (
    AblationFinished,
    AblationStarted,
    AliasSet,
    ArtifactCommitted,
    ArtifactRemoved,
    AttemptFinished,
    AttemptStarted,
    Event,
    RunFinished,
    RunStarted,
    StageResolved,
)
from foundry_core.lineage.events import EventLog
from foundry_core.lineage.index import Index
from foundry_core.lineage.segments import compact

# Views that are functions of the others, and slow to ask hundreds of times.
DERIVED = ("run_summary", "compute_spent_saved", "in_flight", "eval_scores", "ablation_effects")


def rows(path: Path) -> dict[str, list[str]]:
    """Everything in the index, less how it came there."""
    found = {}
    with attach(path) as connection:
        tables = connection.execute(
            "select table_schema || '.' || table_name from information_schema.tables "
            "where table_catalog = 'lineage' and table_name not in ('meta', 'segment')"
        ).fetchall()
        for name in (name for (name,) in tables if name.partition(".")[2] not in DERIVED):
            fetched = connection.execute(f"select * from {name}").fetchall()
            found[name] = sorted(map(repr, fetched))
    assert len(found) > 25
    return found


Stamped = tuple[Event, str, str]


def conflicting_events() -> list[Stamped]:
    """(event, time, id) with several for every entity: runs said twice, rebuilt artifacts, removals
    before and after, moved aliases, attempts closed by others, ties in time."""
    old, new = stage("a", "x", {"v": 1}, {}), stage("b", "y", {"v": 2}, {})
    child = stage("c", "z", {"v": 3}, {"many": old, "other": new})
    stamped: list[Stamped] = []

    def add(event: Event, at: int | None = None) -> None:
        second = len(stamped) if at is None else at
        stamped.append((event, f"2026-05-01T10:00:{second:02d}.000000Z", uuid_of(len(stamped))))

    for stages in ([old], [old, new, child]):
        add(RunStarted(run_id="r", pipeline="p", stages=[planned(one) for one in stages]))
    for action in ("run", "reuse"):
        add(StageResolved(run_id="r", stage="a", key=old["key"], action=action), at=2)
    attempt = {"key": old["key"], "attempt": "a1"}
    for run in ("r0", "r", "r1"):
        add(AttemptStarted(run_id=run, **attempt, kind="x", stage="a", provenance=PROVENANCE))
        add(AttemptFinished(**attempt, state="lost"))
    add(AttemptFinished(run_id="r1", **attempt, state="failed", error="x"))
    add(AttemptFinished(run_id="r1", **attempt, state="committed", seconds=1.0))
    for built in (old, child):
        for metrics in ({"loss": 1.0}, {"loss": 2.0, "tokens": 3}):
            artifact = manifest(built, "r") | {"metrics": metrics}
            steps = [{"step": i, "name": "loss", "value": 1.0} for i in range(len(metrics))]
            score = scores(len(metrics), 4, 0, 0.1, 0.9)
            add(ArtifactCommitted(artifact=artifact, metric_rows=steps, score_rows=[score]))
        add(ArtifactRemoved(kind="x", key=built["key"], reason="gc"), at=20)
    rebuilt = manifest(old, "r") | {"content": digest("rebuilt")}
    add(ArtifactCommitted(artifact=rebuilt), at=21)
    for key in (old["key"], None, child["key"]):
        add(AliasSet(alias="a@b", key=key))
    for status in ("failed", "succeeded"):
        add(RunFinished(run_id="r", status=status, metrics={}))
        variants = [{"variant": status, "overrides": []}]
        add(AblationStarted(ablation_id="ab", base_pipeline="p", variants=variants))
        effects = [{"variant": status, "path": "v", "old": 1, "new": 2, "success": 0.5, "n": 2}]
        add(AblationFinished(ablation_id="ab", status=status, effects=effects))
    return stamped


def put(log: EventLog, stamped: Stamped) -> None:
    event, at, event_id = stamped
    log.append(event, at=at, event_id=event_id)


def set_alias(log: EventLog, alias: str = "new@one") -> None:
    log.append(AliasSet(alias=alias, key="k"))


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
    stamped = conflicting_events()
    order.shuffle(stamped)
    with tempfile.TemporaryDirectory() as folder:
        log = EventLog(f"{folder}/events")
        index = Index(f"{folder}/lineage.duckdb", log)
        bounds = sorted(order.sample(range(1, len(stamped)), cuts))
        for first, last in zip([0, *bounds], [*bounds, len(stamped)], strict=True):
            for event in stamped[first:last]:
                put(log, event)
            if compacting and order.random() < 0.5:
                compact(log, least=1)
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
    assert ask("select a.kind, s.successes from score s join artifact a using (key)") == [("z", 2)]
    assert ask("select alias, a.kind from alias join artifact a using (key)") == [("a@b", "z")]
    assert ask("select variant from ablation_variant") == [("succeeded",)]
    assert ask("select variant, old, new from ablation_effects") == [("succeeded", "1", "2")]
    packages = ask("select name, version from package order by name")
    assert packages == sorted(PROVENANCE["packages"].items())


def test_duplicates_in_segments_and_loose_files_count_once(log, tmp_path):
    write_history(log)
    loose = {name: log.blobs.read(name) for name in log.loose()}
    before = Index(tmp_path / "before.duckdb", log)
    before.rebuild()
    assert compact(log, least=1) == len(loose)
    assert log.loose() == [] and len(log.segments()) == 1
    for number, (name, data) in enumerate(loose.items()):
        if number % 2:
            log.blobs.create(name, data)
    assert compact(log, least=1) == len(loose) // 2
    for name, data in loose.items():
        log.blobs.create(name, data)
    after = Index(tmp_path / "after.duckdb", log)
    assert after.rebuild().events == len(loose)
    assert rows(after.path) == rows(before.path)
    assert before.advance().events == 0


def test_a_long_log_compacts_itself_when_the_index_advances(log, tmp_path, monkeypatch):
    monkeypatch.setattr(index_module, "LOOSE_EVENTS", 500)
    index = Index(tmp_path / "lineage.duckdb", log)
    index.advance()
    for number in range(500):
        set_alias(log, f"filler@{number}")
    index.advance()
    assert len(log.loose()) == 500
    before = rows(index.path)["main.event"]
    for number in range(11):
        set_alias(log, f"more@{number}")
    index.advance()
    assert (len(log.loose()), len(log.segments())) == (index_module.KEPT_LOOSE, 1)
    assert index.advance().events == 0
    set_alias(log)
    assert index.advance().events == 1
    after = rows(index.path)["main.event"]
    assert len(after) == 512 and set(after) > set(before)


def test_young_events_and_few_events_stay_loose(log):
    write_history(log)
    count = len(log.loose())
    assert compact(log, least=count + 1) == 0
    newest = log.append(ArtifactRemoved(kind="x", key="k", reason="now"))
    assert compact(log, least=1, keep=1) == count
    assert log.loose() == [newest]


def test_a_crash_before_the_deletion_of_compacted_events_is_harmless(log, tmp_path, monkeypatch):
    write_history(log)
    count = len(log.loose())

    def die(*names):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(log.blobs, "delete", die)
        with contextlib.suppress(KeyboardInterrupt):
            compact(log, least=1)
    assert (len(log.loose()), len(log.segments())) == (count, 1)
    assert Index(tmp_path / "lineage.duckdb", log).advance().events == count


def test_an_open_reader_keeps_what_it_opened(log, tmp_path):
    index = Index(tmp_path / "lineage.duckdb", log)
    write_history(log)
    index.advance()
    with attach(index.path) as early, duckdb.connect(index.path, read_only=True) as raw:
        set_alias(log)
        assert index.advance().events == 1
        query = "select count(*) from alias"
        with attach(index.path) as late:
            assert late.execute(query).fetchone() == (2,)
        index.rebuild()
        for reader in (early, raw):
            assert reader.execute(query).fetchone() == (1,)


def test_a_notebook_that_opened_the_file_for_writing_disturbs_nobody(log, tmp_path):
    index = Index(tmp_path / "lineage.duckdb", log)
    write_history(log)
    index.advance()
    with duckdb.connect(index.path) as notebook:
        set_alias(log)
        assert index.advance().events == 1
        with attach(index.path) as reader:
            assert reader.execute("select count(*) from alias").fetchone() == (2,)
        assert notebook.execute("select count(*) from alias").fetchone() == (1,)
        notebook.execute("create table mine (a int)")
    assert "mine" not in "".join(rows(index.path))
    set_alias(log, "new@two")
    assert index.advance().events == 1


def test_nothing_new_writes_nothing(log, tmp_path):
    index = Index(tmp_path / "lineage.duckdb", log)
    write_history(log)
    index.advance()
    before = index.path.stat()
    assert index.advance().events == 0
    after = index.path.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_package_lists_come_with_the_attempts_that_name_them(log, tmp_path):
    index = Index(tmp_path / "lineage.duckdb", log)
    write_history(log)
    index.advance()
    packages = {"packages": {"new": "1.0"}}
    log.append(
        AttemptStarted(run_id="r", key="k", kind="x", attempt="a1", stage="s", provenance=packages)
    )
    index.advance()
    with attach(index.path) as connection:
        query = "select version from package where name = 'new'"
        assert connection.execute(query).fetchall() == [("1.0",)]


def test_a_copied_home_can_be_read_where_it_is(log, tmp_path):
    home = tmp_path / "home"
    index = Index(home / "lineage.duckdb", log)
    write_history(log)
    index.advance()
    before = rows(index.path)
    shutil.copytree(home, tmp_path / "copy")
    shutil.rmtree(home)
    assert rows(tmp_path / "copy" / "lineage.duckdb") == before


def test_a_writer_killed_at_work_leaves_the_old_index(log, tmp_path):
    index = Index(tmp_path / "lineage.duckdb", log)
    write_history(log)
    index.advance()
    before = rows(index.path)
    set_alias(log)
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
        set_alias(log, f"writer@{number}-{step}")
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
    write_history(log)
    name = log.loose()[3]
    data = log.blobs.read(name)
    log.blobs.delete(name)
    log.blobs.create(name, data[: len(data) // 2])
    index = Index(tmp_path / "lineage.duckdb", log)
    result = index.advance()
    assert result.events == len(log.loose()) - 1
    assert [problem.partition(":")[0] for problem in result.unreadable] == [name]
    assert compact(log, least=1) == result.events
    assert log.loose() == [name], "a damaged event must not be deleted"
    log.blobs.delete(name)
    log.blobs.create(name, data)
    mended = index.advance()
    assert (mended.events, mended.unreadable) == (1, ())


@pytest.mark.parametrize("damage", ["deleted", "truncated", "other log", "other schema"])
def test_an_index_that_cannot_be_used_is_rebuilt(log, tmp_path, damage):
    write_history(log)
    index = Index(tmp_path / "lineage.duckdb", log)
    index.advance()
    before = rows(index.path)
    if damage == "deleted":
        index.path.unlink()
    elif damage == "truncated":
        os.truncate(index.path, 5000)
    else:
        column, value = ("log", "'/elsewhere'") if "log" in damage else ("form", "'0'")
        with duckdb.connect(index.path) as connection:
            connection.execute(f"update meta set {column} = {value}")
    assert index.advance().events == len(log.loose())
    assert rows(index.path) == before


def test_an_index_with_other_views_is_rebuilt(log, tmp_path, monkeypatch):
    """A release that changes a view need not remember to say so."""
    write_history(log)
    index = Index(tmp_path / "lineage.duckdb", log)
    index.advance()
    assert index.advance().events == 0
    written = index_module._sql
    more = {"views": "create view answer as select 42 as is_;"}
    monkeypatch.setattr(index_module, "_sql", lambda name: written(name) + more.get(name, ""))
    index_module._form.cache_clear()
    try:
        assert index.advance().events == len(log.loose())
        with duckdb.connect(index.path, read_only=True) as connection:
            assert connection.execute("from answer").fetchall() == [(42,)]
    finally:
        index_module._form.cache_clear()


class MemoryFiles:
    """Files without local paths, as in an object store."""

    def __init__(self):
        self.uri = f"memory://{random.random()}"
        self._data = {}

    def create(self, name, data):
        return self._data.setdefault(name, data) is data

    def create_all(self, blobs):
        return [self.create(name, data) for name, data in blobs]

    def read(self, name):
        if name not in self._data:
            raise FileNotFoundError(name)
        return self._data[name]

    def names(self, folder):
        below = f"{folder}/" if folder else ""
        found = (name.removeprefix(below) for name in self._data if name.startswith(below))
        return sorted({name.partition("/")[0] for name in found})

    def delete(self, *names):
        for name in names:
            self._data.pop(name, None)

    def local(self, name):
        return None


def test_a_remote_log_is_indexed_and_compacted_like_a_local_one(log, tmp_path):
    remote = EventLog(MemoryFiles())
    write_history(remote)
    write_history(log)
    near, far = Index(tmp_path / "near.duckdb", log), Index(tmp_path / "far.duckdb", remote)
    near.advance()
    assert compact(remote, least=1) == len(log.loose())
    far.advance()
    assert rows(near.path) == rows(far.path)
