import json
import multiprocessing
import os
import signal
import threading
import time

from foundry_core.store import lease as lease_module
from foundry_core.store.lease import FileLeaseBackend, acquire, read_lease


def test_exclusive_and_released(tmp_path):
    path = tmp_path / "leases" / "k"
    with acquire(FileLeaseBackend(path)) as held:
        held.verify()
        finished = threading.Event()
        assert acquire(FileLeaseBackend(path), done=lambda: finished.set() or True) is None
        assert finished.is_set()
    assert not path.exists()


def _hold(path, ready):
    with acquire(FileLeaseBackend(path)):
        ready.set()
        time.sleep(60)


def test_a_killed_holder_on_this_host_is_taken_over_at_once(tmp_path):
    path = tmp_path / "k"
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    holder = context.Process(target=_hold, args=(path, ready))
    holder.start()
    ready.wait(10)
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    started = time.monotonic()
    with acquire(FileLeaseBackend(path), ttl=60) as held:
        held.verify()
    assert time.monotonic() - started < 5


def _foreign(path, beat=0):
    path.write_text(
        json.dumps(
            {"token": "t", "host": "elsewhere", "boot": "", "pid": 1, "start": "", "beat": beat}
        )
    )


def test_a_silent_foreign_holder_is_taken_over_after_the_ttl(tmp_path):
    path = tmp_path / "k"
    _foreign(path)
    started = time.monotonic()
    with acquire(FileLeaseBackend(path), ttl=0.5, poll=0.05):
        assert time.monotonic() - started >= 0.5


def test_a_slow_but_beating_holder_is_never_taken_over(tmp_path, monkeypatch):
    path = tmp_path / "k"
    stop = threading.Event()

    def beat():
        count = 0
        while not stop.wait(0.1):
            count += 1
            _foreign(path, count)

    _foreign(path)
    beater = threading.Thread(target=beat)
    beater.start()
    # A wall clock set back an hour must not matter: only the waiter's monotonic clock counts.
    monkeypatch.setattr(lease_module.time, "time", lambda: 0.0)
    deadline = time.monotonic() + 1.5
    assert (
        acquire(
            FileLeaseBackend(path), ttl=0.5, poll=0.05, done=lambda: time.monotonic() > deadline
        )
        is None
    )
    stop.set()
    beater.join()
    assert read_lease(path)["token"] == "t"


def test_a_torn_lease_counts_as_silent(tmp_path):
    path = tmp_path / "k"
    path.write_text("{")
    with acquire(FileLeaseBackend(path), ttl=0.2, poll=0.05) as held:
        held.verify()
