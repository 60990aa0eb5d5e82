import json
import shutil

import pytest
from history import manifest, stage

from foundry_core.lineage.connection import attach
from foundry_core.lineage.index import Index
from foundry_core.lineage.rebuild import reconcile
from foundry_core.store import references
from foundry_core.store.local import LocalStore
from foundry_core.store.manifest import File, _without_role, content_digest


@pytest.fixture
def store(log, tmp_path):
    """A store with one artifact whose event was never published."""
    built = stage("a", "x", {"v": 1}, {})
    folder = tmp_path / "store" / "x" / built["key"]
    (folder / "records").mkdir(parents=True)
    document = manifest(built, "r")
    document["content"] = content_digest(File(**f) for f in map(_without_role, document["files"]))
    (folder / "artifact.json").write_text(json.dumps(document))
    (folder / "records" / "metrics.jsonl").write_text('{"step": 1, "loss": 0.25}\n')
    (folder / "records" / "episodes.jsonl").write_text('{"task": "push", "success": true}\n')
    score = {"task": "", "n": 4, "successes": 2, "crashed": 0, "pending": 0}
    bounds = {"rate": 0.5, "low": 0.1, "high": 0.9}
    (folder / "records" / "scores.jsonl").write_text(json.dumps(score | bounds))
    return folder


def ask(index, query):
    with attach(index.path) as connection:
        return connection.execute(query).fetchall()


def run(index, store):
    reader = LocalStore(store.parent.parent)
    return reconcile(index, reader, lambda: references.aliases(reader))


def test_an_unpublished_commit_is_published_once_with_its_records(store, log, tmp_path):
    index = Index(tmp_path / "lineage.duckdb", log)
    assert run(index, store).committed == (store.name,)
    assert ask(index, "select key, present from artifact") == [(store.name, True)]
    assert ask(index, "select value from metric where step = 1") == [(0.25,)]
    assert ask(index, "select task, success from episode") == [("push", True)]
    assert ask(index, "select task, n, rate, low from score") == [("", 4, 0.5, 0.1)]
    assert run(index, store).committed == ()
    other = Index(tmp_path / "other.duckdb", log)
    run(other, store)
    assert len(log.loose()) == 1


def test_two_processes_publish_the_same_event(store, log, tmp_path):
    indexes = [Index(tmp_path / f"{i}.duckdb", log) for i in range(2)]
    names = []
    for index in indexes:
        run(index, store)
        names.append(log.loose())
        log.blobs.delete(names[-1][0])
    assert names[0] == names[1]


def test_a_vanished_artifact_is_called_missing_and_found_again(store, log, tmp_path):
    index = Index(tmp_path / "lineage.duckdb", log)
    run(index, store)
    shutil.copytree(store, tmp_path / "kept")
    shutil.rmtree(store)
    assert run(index, store).removed == (store.name,)
    assert ask(index, "select present, removed_reason from artifact") == [(False, "missing")]
    shutil.copytree(tmp_path / "kept", store)
    assert run(index, store).committed == (store.name,)
    assert ask(index, "select present, removed_reason from artifact") == [(True, None)]


def test_an_unreadable_manifest_is_named(store, log, tmp_path):
    (store / "artifact.json").write_text("{")
    found = run(Index(tmp_path / "lineage.duckdb", log), store)
    assert found.committed == () and store.name in found.unreadable[0]


def test_names_that_were_set_or_removed_without_an_event_get_one(store, log, tmp_path):
    index, reader = Index(tmp_path / "lineage.duckdb", log), LocalStore(store.parent.parent)
    artifact = reader.read("x", store.name)
    references.set_alias(reader, "policy@best", artifact)
    assert run(index, store).aliases == ("policy@best",)
    assert ask(index, "select alias, key from alias") == [("policy@best", store.name)]
    assert run(index, store).aliases == ()
    references.remove_alias(reader, "policy@best")
    assert run(index, store).aliases == ("policy@best",)
    assert ask(index, "from alias") == []


def test_a_name_that_cannot_be_read_is_said(store, log, tmp_path):
    index, reader = Index(tmp_path / "lineage.duckdb", log), LocalStore(store.parent.parent)
    reader.documents.write("aliases/policy@best", b"{")
    assert run(index, store).unreadable[0].startswith("aliases: ")
