"""The outbox: published when its commit happened, dropped when that cannot happen any more."""

import json
from dataclasses import replace

import pytest

from foundry_core.lineage.event_types import ArtifactCommitted
from foundry_core.lineage.events import EventLog
from foundry_core.store.outbox import enqueue, publish_pending
from tests.runs import run


@pytest.fixture
def committed(tmp_path, monkeypatch):
    """(store, log, an artifact)."""
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FOUNDRY_KINDS", "tests.kinds")
    _, done = run()
    store = done.prepared.store
    return store, EventLog(store.events_uri), done.artifact("first")


def pending(log):
    return log.blobs.names("outbox")


def edit(log, **changes):
    """The one entry, as another process would have left it."""
    (name,) = pending(log)
    path = log.blobs.local(f"outbox/{name}")
    with open(path) as stream:
        entry = json.load(stream)
    entry |= changes
    with open(path, "w") as stream:
        json.dump(entry, stream)
    return entry


def test_a_commit_that_happened_is_published_whoever_did_it(committed):
    store, log, artifact = committed
    enqueue(log, artifact, ArtifactCommitted(artifact=artifact.to_json()))
    edit(log, owner={"host": "elsewhere", "pid": 1, "started": 0, "token": "x"})
    assert publish_pending(log, store.read) == [artifact.key]
    assert pending(log) == []
    assert publish_pending(log, store.read) == []


def test_a_commit_that_did_not_happen_is_dropped_with_its_process(committed):
    store, log, artifact = committed
    lost = replace(artifact, key="f" * 64)
    enqueue(log, lost, ArtifactCommitted(artifact=lost.to_json()))
    assert publish_pending(log, store.read) == []
    assert len(pending(log)) == 1, "its process, this one, may still commit"
    owner = edit(log)["owner"]
    edit(log, owner=owner | {"pid": 2**22 + 1})
    assert publish_pending(log, store.read) == []
    assert pending(log) == []


def test_one_of_another_host_is_dropped_after_a_day(committed):
    store, log, artifact = committed
    lost = replace(artifact, key="f" * 64)
    enqueue(log, lost, ArtifactCommitted(artifact=lost.to_json()))
    entry = edit(log)
    events = [[*entry["events"][0][:3], "2026-01-01T00:00:00.000000Z"]]
    edit(log, owner=entry["owner"] | {"host": "elsewhere"})
    publish_pending(log, store.read)
    assert len(pending(log)) == 1, "it may live"
    edit(log, events=events)
    assert publish_pending(log, store.read) == []
    assert pending(log) == []
