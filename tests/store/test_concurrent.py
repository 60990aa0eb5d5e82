"""Several processes at one store: one works, the others wait; nobody robs a holder."""

import collections
import json
import os
import signal
import socket
import time

import pytest

from foundry_core.execution import attempt as attempt_module
from foundry_core.lineage.events import EventLog
from foundry_core.store import lease as lease_module
from foundry_core.store.lease import FileLeaseBackend, LeaseLost, acquire, read_lease
from foundry_core.store.local import LocalStore
from tests.runs import Forked, end_forked, run

STAGES = ("first", "second", "model", "total")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FOUNDRY_KINDS", "tests.kinds")
    yield tmp_path / "home"
    end_forked()


def events(home, kind):
    log = EventLog(home / "store" / "events")
    found = [log.read(name) for name in log.loose()]
    return [event["data"] for event in found if event["type"] == kind]


def summary(*overrides):
    """{stage: (action, key, content)} of one run."""
    actions, done = run(*overrides)
    return {n: (actions[n], done.artifact(n).key, done.artifact(n).content) for n in STAGES}


def until(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def test_eight_processes_commit_each_key_once(home):
    processes = [Forked(summary, "model.seconds=0.4", "first.seconds=0.3") for _ in range(8)]
    results = [process.result() for process in processes]
    for name in STAGES:
        assert len({result[name][1:] for result in results}) == 1
        assert collections.Counter(result[name][0] for result in results) == {"run": 1, "reuse": 7}
    committed = collections.Counter(
        event["artifact"]["key"] for event in events(home, "artifact_committed")
    )
    assert sorted(committed.values()) == [1, 1, 1, 1]
    assert len(events(home, "attempt_started")) == 4
    assert [e["state"] for e in events(home, "attempt_finished")] == ["committed"] * 4
    assert not [p for p in (home / "store" / "leases").iterdir() if p.name != ".lock"]
    assert not list((home / "store" / "events" / "outbox").iterdir())


def _hold_and_stop(path):
    """Stops itself while it holds the lease; says whether it still held it when it went on."""
    with acquire(FileLeaseBackend(path)) as lease:
        os.kill(os.getpid(), signal.SIGSTOP)
        lease.verify()
    return "held"


def test_a_stopped_holder_on_this_machine_keeps_its_lease_beyond_the_ttl(tmp_path):
    path = tmp_path / "leases" / "k"
    holder = Forked(_hold_and_stop, path)
    until(path.exists)
    deadline = time.monotonic() + 1.5
    taken = acquire(
        FileLeaseBackend(path), ttl=0.3, poll=0.05, done=lambda: time.monotonic() > deadline
    )
    assert taken is None
    assert read_lease(path)["pid"] == holder.pid
    os.kill(holder.pid, signal.SIGCONT)
    assert holder.result() == "held"


def test_a_stopped_holder_elsewhere_loses_it_and_notices(tmp_path, monkeypatch):
    path = tmp_path / "leases" / "k"
    here = socket.gethostname()
    monkeypatch.setattr(socket, "gethostname", lambda: "elsewhere")
    holder = Forked(_hold_and_stop, path)
    until(path.exists)
    monkeypatch.setattr(socket, "gethostname", lambda: here)
    with acquire(FileLeaseBackend(path), ttl=0.3, poll=0.05) as mine:
        os.kill(holder.pid, signal.SIGCONT)
        with pytest.raises(RuntimeError, match="LeaseLost"):
            holder.result()
        mine.verify()
    assert not path.exists()


def _elsewhere(ready_to_stop):
    """A run on a machine of another name that stops after its model's child has ended."""
    socket.gethostname = lambda: "elsewhere"
    run_child = attempt_module.run_child

    def stops(work, *arguments):
        result = run_child(work, *arguments)
        if work.job.spec.name == "model":
            ready_to_stop.touch()
            os.kill(os.getpid(), signal.SIGSTOP)
        return result

    attempt_module.run_child = stops
    actions, done = run()
    return actions["model"], done.artifact("model").attempt


def test_an_attempt_that_lost_its_lease_is_discarded_and_the_other_one_used(
    home, tmp_path, monkeypatch
):
    stopped = tmp_path / "stopped"
    slow = Forked(_elsewhere, stopped)
    until(stopped.exists)
    # The TTL is a minute; here the other machine gives up sooner.
    wait_a_minute = LocalStore.acquire
    monkeypatch.setattr(
        LocalStore, "acquire", lambda *key, **named: wait_a_minute(*key, **named | {"ttl": 0.5})
    )
    actions, done = run()
    assert actions["model"] == "run"
    os.kill(slow.pid, signal.SIGCONT)
    assert slow.result() == ("reuse", done.artifact("model").attempt)
    states = [e["state"] for e in events(home, "attempt_finished") if e["stage"] == "model"]
    assert states.count("committed") == 1
    assert "discarded" in states


def test_ten_waiters_take_over_a_dead_holder_one_after_the_other(tmp_path):
    path = tmp_path / "k"
    dead = Forked(os.getpid)
    pid = dead.result()
    path.write_text(
        json.dumps(lease_module.process_identity() | {"token": "t", "beat": 0, "pid": pid})
    )
    count = tmp_path / "count"
    count.write_text("0")
    racers = [Forked(_increment, path, count) for _ in range(10)]
    for racer in racers:
        racer.result()
    assert count.read_text() == "40"


def _increment(path, count):
    """Read, wait, write: loses an update unless it is alone."""
    for _ in range(4):
        with acquire(FileLeaseBackend(path), poll=0.001):
            value = int(count.read_text())
            time.sleep(0.002)
            count.write_text(str(value + 1))


def test_verify_raises_once_the_lease_is_gone(tmp_path):
    path = tmp_path / "k"
    with acquire(FileLeaseBackend(path)) as lease:
        path.unlink()
        with pytest.raises(LeaseLost, match="taken over"):
            lease.verify()
