"""What a commit was going to tell: told when it happened, dropped when it cannot any more."""

import json
from dataclasses import replace

import pytest

from foundry_core.lineage.events import EventLog
from foundry_core.store.outbox import announce, tell_untold
from tests.runs import run


@pytest.fixture
def committed(tmp_path, monkeypatch):
    """(store, log, an artifact that stands)."""
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FOUNDRY_KINDS", "tests.kinds")
    _, done = run()
    store = done.prepared.store
    return store, EventLog(store.events_uri), done.artifact("first")


def pending(log):
    return log.blobs.names("intents")


def edit(log, **changes):
    """The one intent, as another process would have left it."""
    (name,) = pending(log)
    path = log.blobs.local(f"intents/{name}")
    with open(path) as stream:
        intent = json.load(stream)
    intent |= changes
    with open(path, "w") as stream:
        json.dump(intent, stream)
    return intent


def test_a_commit_that_happened_is_told_whoever_did_it(committed):
    store, log, artifact = committed
    announce(log, artifact, {})
    edit(log, owner={"host": "elsewhere", "pid": 1, "started": 0, "token": "x"})
    assert tell_untold(log, store.read) == [artifact.key]
    assert pending(log) == []
    assert tell_untold(log, store.read) == []


def test_a_commit_that_did_not_happen_is_dropped_with_its_process(committed):
    store, log, artifact = committed
    lost = replace(artifact, key="f" * 64)
    announce(log, lost, {})
    assert tell_untold(log, store.read) == []
    assert len(pending(log)) == 1, "its process, this one, may still commit"
    owner = edit(log)["owner"]
    edit(log, owner=owner | {"pid": 2**22 + 1})
    assert tell_untold(log, store.read) == []
    assert pending(log) == []


def test_one_of_another_host_is_dropped_after_a_day(committed):
    store, log, artifact = committed
    announce(log, replace(artifact, key="f" * 64), {})
    intent = edit(log)
    events = [[*intent["events"][0][:3], "2026-01-01T00:00:00.000000Z"]]
    edit(log, owner=intent["owner"] | {"host": "elsewhere"})
    tell_untold(log, store.read)
    assert len(pending(log)) == 1, "it may live"
    edit(log, events=events)
    assert tell_untold(log, store.read) == []
    assert pending(log) == []
