"""A run that is asked to end does so, records it, and is killed when it cannot."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from prefect.exceptions import TerminationSignal

from flows.deployment.shutdown import ends_on_sigterm
from foundry_core.lineage.connection import attach
from foundry_core.lineage.events import EventLog
from foundry_core.lineage.index import Index

PIPELINE = Path(__file__).parents[2] / "kinds" / "pipeline.yaml"
STUCK = """
import time
from flows.deployment.shutdown import ends_on_sigterm
with ends_on_sigterm(0.5):
    while True:
        try:
            print("busy", flush=True)
            while True:
                time.sleep(0.05)
        except BaseException:
            pass
"""


def test_a_termination_is_an_exception_within_and_nothing_lingers():
    before = signal.getsignal(signal.SIGTERM)
    threads = threading.active_count()
    with pytest.raises(TerminationSignal), ends_on_sigterm(0.1):
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
    assert signal.set_wakeup_fd(-1) == -1
    with ends_on_sigterm(0.1):
        pass
    time.sleep(0.3)  # nobody kills a block that was left
    assert threading.active_count() == threads


def test_in_other_threads_nothing_changes():
    before = signal.getsignal(signal.SIGTERM)
    found = []

    def work():
        with ends_on_sigterm():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [before]


def test_who_does_not_end_is_killed_and_told_so():
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "busy\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "busy\n", "Ctrl-C alone kills nobody"
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 143
    assert "(SIGTERM), still busy after 0.5 s: killed" in err


def test_a_terminated_run_is_recorded_as_interrupted(tmp_path):
    home = tmp_path / "home"
    environment = {**os.environ, "FOUNDRY_HOME": str(home), "FOUNDRY_KINDS": "tests.kinds"}
    command = [sys.executable, "-m", "flows.cli", "run", str(PIPELINE), "-o", "model.seconds=60"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not [*home.glob("store/work/*/*/job.json")] and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130, out
    Index(home / "lineage.duckdb", EventLog(home / "store" / "events")).advance()
    with attach(home / "lineage.duckdb") as connection:
        states = connection.execute("select status from pipeline_run").fetchall()
        running = connection.execute("from attempt where state = 'running'").fetchall()
    assert states == [("interrupted",)]
    assert running == []
