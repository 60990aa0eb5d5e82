"""Whom the reaper touches on a server, and whom it leaves alone, against a server of dictionaries.
That Prefect does what is asked is tried by tests/faults/orchestration.py."""

import json
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from uuid import UUID, uuid4

import pytest
from prefect.client.schemas.objects import State, StateType

from flows import processes
from flows.prefect import api as prefect_api
from flows.prefect import pools
from flows.service.reaper import reap


class Server:
    """Flow runs by id, and what was done to them."""

    def __init__(self):
        self.runs, self.done = {}, []

    def add(self, name, kind, seconds=0.0, pool="gpu-pool", parent=None, tags=()):
        """A run that has been in its state for so many seconds."""
        since = datetime.now(UTC) - timedelta(seconds=seconds)
        run = SimpleNamespace(
            id=uuid4(),
            name=name,
            state=State(type=kind, timestamp=since),
            work_pool_name=pool,
            parent=parent,
            tags=tags,
        )
        self.runs[run.id] = run
        return run

    def open_runs(self, *, tags=(), parent=None, states=()):
        wanted = list(states or prefect_api.OPEN_STATES)
        return [
            run
            for run in self.runs.values()
            if run.state.type in wanted and set(tags) <= set(run.tags)
        ]

    def set_state(self, run_id, kind, message, *, force=False):
        self.done.append((self.runs[run_id].name, kind.value, force))

    def cancel_run(self, run_id, message):
        self.done.append((self.runs[run_id].name, "CANCELLING", False))

    def reschedule(self, run_id, message):
        self.done.append((self.runs[run_id].name, "SCHEDULED", True))


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    server = Server()
    for name in ("open_runs", "set_state", "cancel_run", "reschedule"):
        monkeypatch.setattr(prefect_api, name, getattr(server, name))
    monkeypatch.setattr(prefect_api, "read_run", server.runs.get)
    monkeypatch.setattr(prefect_api, "cancel_children", lambda run_id, message: 0)
    monkeypatch.setattr(prefect_api, "parent_of", lambda run: run.parent)
    monkeypatch.setattr(pools, "process_pools", lambda: {"foundry", "gpu-pool"})
    return server


def process(run, *, dead=False):
    entry = processes.record("flow-run", str(run.id))
    if dead:
        data = json.loads(entry.path.read_text())
        data["process"]["start"] = "1"
        entry.path.write_text(json.dumps(data))


def test_runs_of_dead_processes_end_as_was_wanted(server):
    process(server.add("worked", StateType.RUNNING), dead=True)
    process(server.add("cancelled", StateType.CANCELLING), dead=True)
    process(server.add("done", StateType.COMPLETED), dead=True)
    process(server.add("again", StateType.SCHEDULED), dead=True)
    living = server.add("living", StateType.RUNNING, seconds=1e6)
    process(living)
    reap()
    assert sorted(server.done) == [("cancelled", "CANCELLED", True), ("worked", "CRASHED", True)]
    assert [entry.id for entry in processes.entries("flow-run")] == [str(living.id)]


def test_an_entry_of_a_deleted_run_is_forgotten(server):
    process(SimpleNamespace(id=UUID(int=7)), dead=True)
    reap()
    assert processes.entries() == []
    assert server.done == []


def test_cancelling_is_forced_after_a_minute(server):
    server.add("slow", StateType.CANCELLING, seconds=61)
    server.add("fresh", StateType.CANCELLING, seconds=30)
    reap()
    assert server.done == [("slow", "CANCELLED", True)]


def test_pending_without_a_process_is_queued_again_but_not_where_images_are_pulled(server):
    server.add("left", StateType.PENDING, seconds=181)
    server.add("fresh", StateType.PENDING, seconds=60)
    server.add("pulling", StateType.PENDING, seconds=600, pool="kubernetes")
    process(server.add("begun", StateType.PENDING, seconds=181))
    reap()
    assert server.done == [("left", "SCHEDULED", True)]


def test_trainings_whose_coordinator_has_ended_are_cancelled(server):
    ended = server.add("ended", StateType.CRASHED)
    waiting = server.add("waiting", StateType.RUNNING)
    for name, parent in (("orphan", ended), ("child", waiting), ("alone", None)):
        server.add(name, StateType.SCHEDULED, parent=parent, tags=("train",))
    server.add("told", StateType.CANCELLING, parent=ended, tags=("train",))
    reap()
    assert server.done == [("orphan", "CANCELLING", False)]


def test_a_process_that_outlives_the_end_of_its_run_is_stopped(server, monkeypatch):
    stopped = []
    monkeypatch.setattr(processes, "stop", lambda entry, **_: stopped.append(entry.id))
    outlived = server.add("outlived", StateType.CRASHED, seconds=46)
    process(outlived)
    process(server.add("ending", StateType.COMPLETED, seconds=5))
    reap()
    assert stopped == [str(outlived.id)]
