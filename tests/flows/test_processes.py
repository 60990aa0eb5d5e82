"""Which process works on what, and whether it still lives."""

import json
import os
import signal
import subprocess
import sys

import pytest

from flows import processes


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def sleeper():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield child
    child.kill()
    child.wait()


def test_an_entry_lives_as_long_as_its_process(sleeper):
    written = processes.record("run", "r1", sleeper.pid, facts={"pipeline": "demo"})
    (entry,) = processes.entries("run")
    assert entry == written
    assert entry.facts == {"pipeline": "demo"}
    assert not entry.dead
    sleeper.kill()
    sleeper.wait()
    assert entry.dead
    assert processes.entries("service") == []


def test_a_pid_that_was_given_to_another_process_is_no_life(home):
    entry = processes.record("run", "r1")
    assert not entry.dead
    data = json.loads(entry.path.read_text())
    data["process"]["start"] = "1"
    entry.path.write_text(json.dumps(data))
    assert processes.entries()[0].dead


def test_a_process_of_another_host_is_never_called_dead_nor_stopped(home):
    entry = processes.record("run", "r1")
    data = json.loads(entry.path.read_text())
    data["process"] |= {"host": "elsewhere", "pid": 2**22 + 1}
    entry.path.write_text(json.dumps(data))
    (far,) = processes.entries()
    assert not far.dead
    assert not far.local
    assert not processes.stop(far)


def test_the_file_stays_only_where_the_process_died_in_the_block(home):
    code = (
        "import os; from flows.processes import recorded\n"
        "with recorded('run', 'r1'):\n"
        "    os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    (left,) = processes.entries("run")
    assert left.dead
    left.forget()
    with pytest.raises(ValueError, match="told to"), processes.recorded("run", "r2"):
        assert processes.entries("run")
        raise ValueError("told to")
    assert processes.entries("run") == []


def test_stop_asks_first_and_kills_what_does_not_listen():
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True)\n"
    deaf = subprocess.Popen([sys.executable, "-c", code + "time.sleep(60)"], stdout=-1)
    assert deaf.stdout.readline()
    entry = processes.record("run", "r1", deaf.pid)
    assert processes.stop(entry, signal.SIGTERM, patience=0.5)
    assert deaf.wait(5) == -signal.SIGKILL
    deaf.stdout.close()
    assert not processes.stop(entry)


def test_torn_and_foreign_files_are_passed_over(home):
    processes.record("run", "r1")
    (home / "processes" / "run-torn.json").write_text('{"kind": "ru')
    assert [entry.id for entry in processes.entries()] == ["r1"]
    assert os.listdir(home / "processes")
