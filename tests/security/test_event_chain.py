"""A history that somebody edited, cut or reordered, and how verify names the place."""

import errno
import json
import multiprocessing
import os
import shutil
import tempfile
import uuid
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flows.cli import main
from foundry_core.lineage.chain import ChainCheck, events_of
from foundry_core.lineage.event_types import AliasSet
from foundry_core.lineage.events import SEGMENTS, EventLog, encode, event_name
from foundry_core.lineage.index import Index
from foundry_core.lineage.projection import PROJECTIONS
from foundry_core.lineage.segments import compact, read_segment
from foundry_core.store.audit import audit
from foundry_core.store.open import open_store
from foundry_core.store.outbox import publish_pending
from tests.runs import run


@pytest.fixture(autouse=True)
def home(small_home):
    return small_home


def tell(log, *names):
    return [log.append(AliasSet(alias=f"{name}@1", key="k")) for name in names]


def check(log, known=()):
    found = ChainCheck()
    for event in events_of(log, found.problems):
        found.add(event)
    return found.result(known)


def rewrite(log, name, **change):
    """An event's file with other data, and all else as it was."""
    event = log.read(name)
    event["data"] |= change
    log.blobs.write(name, encode(event))


def test_an_untouched_history_is_whole_however_it_lies(tmp_path):
    log, other = EventLog(tmp_path), EventLog(tmp_path)
    for number in range(4):
        tell(log, f"a{number}", f"b{number}")
        tell(other, f"c{number}")
    assert check(log).problems == ()
    assert (check(log).events, check(log).writers) == (12, 2)
    compact(log, least=1, keep=2)
    tell(EventLog(tmp_path), "d")
    assert check(log).problems == ()
    compact(log, least=1)
    tell(log, "e")
    compact(log, least=1)
    assert sum(len(read_segment(log, segment)) for segment in log.segments()) == 14
    assert check(log).problems == ()
    assert check(log).unchained == 0


def test_events_that_are_written_together_lie_as_one_after_the_other_would(tmp_path):
    log = EventLog(tmp_path)
    tell(log, "a")
    with log.together():
        inside = tell(log, "b", "c")
        with log.together():
            inside += tell(log, "d")
        assert len(log.loose()) == 1, "nothing is there yet"
        twice = {"event_id": str(uuid.uuid4()), "at": log.now()}
        inside.append(log.append(AliasSet(alias="e@1", key="k"), **twice))
        assert len(log.loose()) == 5, "what may be published twice is written at once, in its turn"
        assert log.append(AliasSet(alias="e@2", key="k"), **twice) == inside[-1]
        inside += tell(log, "f")
    tell(log, "g")
    assert set(inside) < set(log.loose())
    found = check(log)
    assert (found.problems, found.writers, found.events) == ((), 1, 7)


def test_events_of_a_block_that_raises_are_written(tmp_path):
    log = EventLog(tmp_path)
    with pytest.raises(KeyError), log.together():
        tell(log, "a", "b")
        raise KeyError
    assert len(log.loose()) == 2
    tell(log, "c")
    assert (check(log).problems, check(log).writers) == ((), 1)


def test_a_group_that_a_full_disk_cuts_leaves_a_history_without_a_gap(tmp_path, monkeypatch):
    log, link = EventLog(tmp_path), os.link
    tell(log, "a")
    left = iter(range(3))

    def full(old, new):
        if next(left, None) is None:
            raise OSError(errno.ENOSPC, "no space")
        link(old, new)

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(OSError, match="no space"), log.together():
        tell(log, *"bcdef")
    monkeypatch.undo()
    assert len(log.loose()) == 4
    tell(log, "g")
    assert (check(log).problems, check(log).writers) == ((), 2)


def test_an_edited_event_is_named_by_the_one_after_it(tmp_path):
    log = EventLog(tmp_path)
    names = tell(log, "a", "b", "c")
    rewrite(log, names[1], key="another")
    (problem,) = check(log).problems
    assert (
        "was changed" in problem
        and names[1].partition("-")[0]
        and "names another digest" in problem
    )
    assert log.read(names[1])["id"] in problem


def test_a_deleted_event_is_missed(tmp_path):
    log = EventLog(tmp_path)
    names = tell(log, "a", "b", "c")
    log.blobs.delete(names[1])
    (problem,) = check(log).problems
    assert "number 1 is gone" in problem


def test_a_deleted_beginning_is_missed(tmp_path):
    log = EventLog(tmp_path)
    log.blobs.delete(tell(log, "a", "b")[0])
    (problem,) = check(log).problems
    assert "number 0 is gone, between its beginning" in problem


def test_events_that_changed_places_are_found(tmp_path):
    log = EventLog(tmp_path)
    first, second, _ = tell(log, "a", "b", "c")
    one, two = log.read(first), log.read(second)
    one["chain"], two["chain"] = two["chain"], one["chain"]
    log.blobs.write(first, encode(one))
    log.blobs.write(second, encode(two))
    assert "was changed" in check(log).problems[0]
    data = log.blobs.read(first)
    log.blobs.write(first, log.blobs.read(second))
    log.blobs.write(second, data)
    assert all("is not an event" in problem for problem in check(log).problems[:2])


def test_an_event_that_was_slipped_in_is_found(tmp_path):
    log = EventLog(tmp_path)
    names = tell(log, "a", "b")
    event = log.read(names[0])
    event |= {"id": "0c1e8f0a-6f3b-4a52-9d67-2b1f0e8c9a44"}
    log.blobs.create(event_name(event["time"], event["id"]), encode(event))
    assert "two events are its number 0" in check(log).problems[0]


@pytest.mark.parametrize("chain", [None, 7, {}, {"writer": "w"}, {"writer": 1, "number": "0"}])
def test_a_chain_of_another_form_is_named(tmp_path, chain):
    log = EventLog(tmp_path)
    (name,) = tell(log, "a")
    log.blobs.write(name, encode(log.read(name) | {"chain": chain}))
    assert "names no place in a chain" in check(log).problems[0]


def test_the_end_of_a_chain_is_held_by_the_next_writer(tmp_path):
    log = EventLog(tmp_path)
    names = tell(log, "a", "b", "c")
    tell(EventLog(tmp_path), "d")
    kept = log.blobs.read(names[2])
    rewrite(log, names[2], key="another")
    assert "was changed: it was the newest before" in check(log).problems[0]
    log.blobs.write(names[2], kept)
    assert check(log).problems == ()
    log.blobs.delete(*names[1:])
    assert "is gone: it was the newest before" in check(log).problems[0]


def test_the_end_of_the_log_is_held_by_the_index_of_the_home(home, capsys):
    _, done = run()
    log = EventLog(done.prepared.store.events_uri)
    assert main(["lineage", "verify"]) == 0
    assert "1 chains, 0 broken; unchained: 0 from before" in capsys.readouterr().out
    log.blobs.delete(*log.loose()[-2:])
    assert main(["lineage", "verify"]) == 2
    said = capsys.readouterr()
    assert "2 events that this home's index took in are gone" in said.out
    assert "restore the folder from a copy" in said.err


def test_what_earlier_versions_wrote_is_counted_and_read(tmp_path):
    log = EventLog(tmp_path)
    for name in tell(log, "a", "b"):
        event = log.read(name)
        del event["chain"]
        log.blobs.write(name, encode(event))
    tell(EventLog(tmp_path), "c")
    found = check(log)
    assert (found.problems, found.unchained, found.events) == ((), 2, 3)
    compact(log, least=1)
    assert check(log).unchained == 2


def test_an_edited_segment_is_named(tmp_path):
    log = EventLog(tmp_path)
    names = tell(log, "a", "b", "c")
    other = EventLog(tmp_path / "other")
    for name in names:
        event = log.read(name)
        if name == names[1]:
            event["data"]["key"] = "another"
        other.blobs.create(name, encode(event))
    compact(log, least=1)
    compact(other, least=1)
    (theirs,), (ours,) = other.segments(), log.segments()
    log.blobs.write(ours, other.blobs.read(theirs))
    problems = check(log).problems
    assert any("holds other events than were packed" in one for one in problems)
    assert any("was changed" in one for one in problems)


def test_a_segment_that_was_taken_away_is_missed(tmp_path):
    log = EventLog(tmp_path)
    tell(log, "a", "b", "c")
    compact(log, least=1, keep=1)
    log.blobs.delete(*log.segments())
    assert "number 0 is gone" in check(log).problems[0]


def _write(folder, name):
    tell(EventLog(folder), *(f"{name}{number}" for number in range(20)))


def test_many_writers_and_compactors_at_once(tmp_path):
    fork = multiprocessing.get_context("fork")
    writers = [fork.Process(target=_write, args=(tmp_path, f"w{i}")) for i in range(4)]
    for process in writers:
        process.start()
    log = EventLog(tmp_path)
    index = Index(tmp_path / "lineage.duckdb", log)
    while any(process.is_alive() for process in writers):
        compact(log, least=5, keep=1)
        index.advance()
    for process in writers:
        process.join()
    assert check(log).problems == ()
    assert check(log).events == 80
    index.advance()
    assert index.rebuild().events == 80


def test_a_forked_process_is_a_writer_of_its_own(tmp_path):
    log = EventLog(tmp_path)
    tell(log, "a")
    process = multiprocessing.get_context("fork").Process(target=tell, args=(log, "b"))
    process.start()
    process.join()
    tell(log, "c")
    assert (check(log).problems, check(log).writers) == ((), 2)


def test_after_a_write_that_failed_another_chain_begins(tmp_path, monkeypatch):
    log = EventLog(tmp_path)
    tell(log, "a")

    def fail(blobs):
        type(log.blobs).create_all(log.blobs, blobs)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(log.blobs, "create_all", fail)
        with pytest.raises(OSError, match="No space"):
            tell(log, "b")
    tell(log, "c")
    assert (check(log).problems, check(log).writers) == ((), 2)


def test_what_is_published_twice_breaks_no_chain(tmp_path):
    log, other = EventLog(tmp_path), EventLog(tmp_path)
    at = {"event_id": "0c1e8f0a-6f3b-4a52-9d67-2b1f0e8c9a44", "at": "2026-01-02T03:04:05.000006Z"}
    for writer in (log, other, log):
        tell(writer, "x")
        writer.append(AliasSet(alias="a@1", key="k"), **at)
    compact(log, least=1)
    other.append(AliasSet(alias="a@1", key="k"), **at)
    tell(other, "y")
    assert check(log).problems == ()
    compact(log, least=1)
    assert check(log).problems == ()
    assert check(log).events == 5


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_no_change_of_a_chained_event_goes_unseen(data):
    """Any event but the last: changed in any field, deleted, or given other bytes."""
    with tempfile.TemporaryDirectory() as folder:
        log = EventLog(folder)
        for count in data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3)):
            tell(EventLog(folder), *(f"n{number}" for number in range(count)))
        names = log.loose()
        last = tell(EventLog(folder), "end")
        assert check(log).problems == ()
        name = data.draw(st.sampled_from(names))
        path = Path(folder, name)
        how = data.draw(st.sampled_from(["delete", "field", "data", "bytes"]))
        if how == "delete":
            path.unlink()
        elif how == "bytes":
            path.write_bytes(data.draw(st.binary(max_size=40)))
        else:
            event = json.loads(path.read_bytes())
            place = event["data"] if how == "data" else event
            field = data.draw(st.sampled_from(sorted(place)))
            value = data.draw(st.none() | st.integers() | st.text(max_size=5) | st.just({}))
            if value == place[field]:
                return
            place[field] = value
            path.write_bytes(encode(event))
        assert check(log).problems, (how, name, last)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=4,
)
_NAMES = ("artifact", "run_id", "key", "stages", "files", "inputs", "metrics", "created", "alias")
_DATA = st.recursive(
    st.dictionaries(st.sampled_from(_NAMES), _JSON, max_size=4),
    lambda inner: st.dictionaries(st.sampled_from(_NAMES), inner | st.lists(inner, max_size=2)),
    max_leaves=4,
)
TYPES = sorted({projection.event for projection in PROJECTIONS})


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(TYPES), _DATA), min_size=1, max_size=4), _JSON)
def test_events_of_any_form_stop_neither_index_nor_verify(told, run_id):
    with tempfile.TemporaryDirectory() as folder:
        log = EventLog(f"{folder}/store/events")
        for kind, data in told:
            event = {"schema": 1, "type": kind, "data": data, "run_id": run_id}
            event |= {"id": str(uuid.uuid4()), "time": log.now()}
            text = json.dumps(event)
            log.blobs.create(event_name(event["time"], event["id"]), text.encode())
        tell(log, "a")
        index = Index(f"{folder}/lineage.duckdb", log)
        assert index.advance().events >= 1
        found = audit(open_store(f"{folder}/store"), log, [], index.path)
        assert found.chains.events >= 1
        compact(log, least=1)
        index.rebuild()


@pytest.mark.parametrize(
    "data",
    [b"{", b"[]", b"[" * 100_000, b'{"id": "\\ud800"}', b'{"time": 1, "id": 2}', b"null", b"7"],
)
def test_a_file_that_is_no_event_is_named_and_left(tmp_path, data):
    log = EventLog(tmp_path)
    (name,) = tell(log, "a")
    log.blobs.write(name, data)
    index = Index(tmp_path / "lineage.duckdb", log)
    assert name in index.advance().unreadable[0]
    assert name in check(log).problems[0]
    assert compact(log, least=1) == 0 and log.loose() == [name]


@given(st.binary(max_size=50) | st.builds(lambda value: json.dumps(value).encode(), _JSON))
def test_what_is_no_entry_of_an_outbox_publishes_nothing(data):
    with tempfile.TemporaryDirectory() as folder:
        log = EventLog(folder)
        log.blobs.create("outbox/a-b.json", data)
        assert publish_pending(log, lambda kind, key: None) == []


def test_an_outbox_entry_that_names_another_place_is_not_read(tmp_path):
    log = EventLog(tmp_path)
    entry = {"kind": "../x", "key": "k" * 64, "events": [], "owner": {}, "token": "t"}
    log.blobs.create("outbox/a-b.json", encode(entry))
    assert publish_pending(log, lambda kind, key: pytest.fail("read")) == []


def _forged(store, kind, key, change):
    """The artifact's files changed by whoever also brings its manifest up to date."""
    from foundry_core.store.manifest import Artifact, content_digest, scan

    folder = store.path(kind, key)
    change(folder)
    files = scan(folder)
    document = json.loads((folder / "artifact.json").read_text())
    document["files"] = [{"path": f.path, "size": f.size, "sha256": f.sha256} for f in files]
    document["content"] = content_digest(files)
    (folder / "artifact.json").write_bytes(Artifact.from_json(document).encoded())


def verify(capsys):
    capsys.readouterr()
    code = main(["lineage", "verify", "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("name", ["weight.txt", "records/added.txt"])
def test_a_file_edited_together_with_its_digest_differs_from_its_commit(name, capsys):
    _, done = run()
    store, model = done.prepared.store, done.artifact("model")
    _forged(store, "train", model.key, lambda folder: (folder / name).write_text("evil"))
    assert store.verify("train", model.key).status == "ok", "all that the store itself can tell"
    code, found = verify(capsys)
    (row,) = found["corrupt"]
    assert code == 1 and (row["kind"], row["key"]) == ("train", model.key)
    assert "files differ from those of its commit" in row["problem"]
    assert "delete it" in row["mend"]


def test_an_artifact_moved_to_anothers_key_has_another_recipe(capsys):
    _, one = run()
    _, two = run("first.word=uno")
    store, first, second = one.prepared.store, one.artifact("first"), two.artifact("first")
    here, there = store.path("emit", first.key), store.path("emit", second.key)
    shutil.rmtree(there)
    shutil.copytree(here, there)
    document = json.loads((there / "artifact.json").read_text()) | {"key": second.key}
    (there / "artifact.json").write_text(json.dumps(document))
    code, found = verify(capsys)
    (row,) = found["corrupt"]
    assert code == 1 and row["key"] == second.key
    assert f"its recipe and inputs have key {first.key[:12]}" in row["problem"]


def test_an_artifact_that_nobody_committed_is_named_and_can_be_taken_in(home, tmp_path, capsys):
    _, done = run()
    shutil.rmtree(home / "store" / "events")
    (home / "lineage.duckdb").unlink()
    _, found = verify(capsys)
    assert {row["problem"] for row in found["corrupt"]} == {
        "the lineage has no event of its commit"
    }
    assert "foundry lineage rebuild" in found["corrupt"][0]["mend"]
    assert main(["lineage", "rebuild"]) == 0
    assert verify(capsys)[0] == 0
    assert audit(
        open_store(str(home / "store")), EventLog(done.prepared.store.events_uri), [], home
    )


def test_links_and_imports_are_as_they_were_told(home, tmp_path, capsys):
    """An early cutoff and a folder from outside: keys and commits of another form."""
    run()
    actions, _ = run("first.comment=other")
    assert actions["model"] == "reuse"
    (tmp_path / "bytes").mkdir()
    (tmp_path / "bytes" / "text.txt").write_text("one\n")
    assert main(["lineage", "import", "emit", str(tmp_path / "bytes"), "--name", "a@1"]) == 0
    assert verify(capsys)[0] == 0
    assert EventLog(home / "store" / "events").blobs.names(SEGMENTS) == []


def test_what_an_earlier_version_committed_is_compared_with_its_commit_only(home, capsys):
    """Its keys were computed otherwise; its events have no chain and other names of fields."""
    _, done = run()
    store, total = done.prepared.store, done.artifact("total")
    log = EventLog(store.events_uri)
    path = store.path("measure", total.key) / "artifact.json"
    document = json.loads(path.read_text())
    old = document | {"closure": document["code_fingerprint"], "code": "1"}
    del old["code_fingerprint"]
    path.write_text(json.dumps(old))
    for name in log.loose():
        event = log.read(name)
        del event["chain"]
        if event["data"].get("artifact", {}).get("key") == total.key:
            event["data"]["artifact"] = old
        log.blobs.write(name, encode(event))
    code, found = verify(capsys)
    assert (code, found["corrupt"]) == (0, [])
    assert found["events"]["unchained"] == found["events"]["events"]
    path.write_text(json.dumps(old | {"seed": 7}))
    code, found = verify(capsys)
    assert code == 1 and "its seed differ" in found["corrupt"][0]["problem"]
