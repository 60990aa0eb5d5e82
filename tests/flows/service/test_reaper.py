"""Closing what a killed run left open, without a server."""

import signal
import subprocess
import sys
import time

import pytest

from flows import processes
from flows.cli import main
from flows.service.reaper import Reaper, reap
from foundry_core.errors import FoundryError
from foundry_core.lineage import queries
from foundry_core.store.lease import read_lease
from tests.orchestration import until
from tests.support import WORDS

# A run without Prefect, stage after stage, which is killed in its training.
RUN = f"""
from flows.runs.engine import PipelineRun
from flows.runs.planning import Request, prepare
changes = (("model.seconds", 600.0), ("model.steps", 6000))
request = Request(pipeline={str(WORDS)!r}, overrides=changes)
run = PipelineRun(prepare(request))
run.start()
run.walk()
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FOUNDRY_KINDS", "tests.kinds")
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    return tmp_path / "home"


@pytest.fixture
def running(home):
    process = subprocess.Popen([sys.executable, "-c", RUN])
    try:
        until(lambda: list(home.glob("store/work/*/scratch/state.json")), 60, "it trains")
        yield process
    finally:
        process.kill()
        process.wait()


def status():
    with queries.connect() as connection:
        return queries.sql(connection, "select run_id, status, error from pipeline_run")


def test_what_lives_is_left_alone_and_what_died_is_closed(home, running, capsys):
    assert reap(server=False) == {}
    (entry,) = processes.entries("run")
    (lease,) = (home / "store" / "leases").glob("[!.]*")
    running.send_signal(signal.SIGKILL)
    running.wait()
    until(lambda: read_lease(lease) and entry.dead, 5, "it is dead")
    assert main(["status"]) == 0
    assert "dead: foundry reap" in capsys.readouterr().out
    done = reap(server=False)
    assert done == {"runs closed": [entry.id], "leases released": [lease.name[:12]]}
    assert status() == [{"run_id": entry.id, "status": "lost", "error": "its process died"}]
    assert processes.entries() == []
    assert not lease.exists()
    assert reap(server=False) == {}


def test_a_broken_pass_does_not_end_the_reaper(home, monkeypatch):
    def fail(**_):
        raise FoundryError("the server is away", "wait")

    said = []
    monkeypatch.setattr("flows.service.reaper.reap", fail)
    reaper = Reaper(said.append, every=0.05)
    reaper.start()
    until(lambda: len(said) > 2, 10, "it goes on")
    reaper.stop()
    count = len(said)
    time.sleep(0.2)
    assert len(said) == count
    assert said[0] == "reaper: not now: the server is away (wait)"


def test_cancelling_what_does_not_run(home, capsys):
    assert main(["cancel", "no-such-run"]) == 2
    assert "no run 'no-such-run' is under way" in capsys.readouterr().err
