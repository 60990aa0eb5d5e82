"""The server of a run that has none of its own: started once at a time on a new home, ended with
the run however that ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.deployment import server
from foundry_core.execution.python import python_command
from tests.orchestration import until
from tests.support import WORDS

START = """
import sys
from pathlib import Path
from flows.deployment.temporary_server import temporary_server
from flows.prefect.api import api, configured
assert not configured()
with temporary_server(Path(sys.argv[1])):
    assert not configured(), "nobody looks at a temporary server"
    with api() as client:
        print(client.read_flow_runs(), flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def environment(tmp_path):
    own = {"FOUNDRY_HOME": str(tmp_path / "home"), "FOUNDRY_KINDS": "tests.kinds"}
    return {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")} | own


def servers(home):
    """Pids of servers of this home."""
    mark = f"FOUNDRY_HOME={home}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
            environment = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"flows.deployment.entry\0server" in command and mark in environment:
            found.append(int(folder.name))
    return found


@pytest.mark.slow("starts Prefect servers")
def test_several_servers_start_at_once_on_a_new_home(environment, tmp_path):
    starts = [
        subprocess.Popen(
            [sys.executable, "-c", START, str(tmp_path / f"{i}.log")],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for i in range(4)
    ]
    assert [start.stdout.readline() for start in starts] == ["[]\n"] * 4
    assert len(servers(environment["FOUNDRY_HOME"])) == 4
    for start in starts:
        start.communicate("\n", timeout=60)
    assert [start.returncode for start in starts] == [0] * 4
    assert servers(environment["FOUNDRY_HOME"]) == []


def test_a_database_is_made_by_one_and_waited_for_by_the_others(tmp_path, monkeypatch):
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    with server.database_made():
        assert not (tmp_path / "migrated").exists()
        (tmp_path / "prefect.db").touch()
    with server.database_made(), server.database_made():
        pass  # made already: nobody waits for anybody
    (tmp_path / "migrated").write_text("2.0")  # by another version: it is migrated again
    with server.database_made():
        other = subprocess.Popen([sys.executable, "-c", WAITS], stdout=subprocess.PIPE)
        time.sleep(1.0)
        assert other.poll() is None
    assert other.communicate(timeout=60)[0] == b"in\n"


WAITS = "from flows.deployment.server import database_made\nwith database_made(): print('in')"


def test_a_server_that_does_not_start_is_named_with_its_last_words(tmp_path, monkeypatch):
    from flows.deployment import temporary_server as module
    from foundry_core.errors import FoundryError

    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setattr(module, "configured", lambda: False)
    broken = [sys.executable, "-c", "print('no such table'); raise SystemExit(3)"]
    monkeypatch.setattr(module, "entry_command", lambda *_: broken)
    with (
        pytest.raises(FoundryError, match="no such table"),
        module.temporary_server(tmp_path / "server.log"),
    ):
        pass
    assert not (tmp_path / "migrated").exists()


@pytest.mark.slow("starts Prefect servers")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, None])
def test_the_temporary_server_ends_with_its_run(environment, number):
    slow = ("-o", "model.seconds=60") if number else ()
    run = subprocess.Popen(
        [*python_command("flows.cli", "run", "--prefect", str(WORDS)), *slow],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    home = Path(environment["FOUNDRY_HOME"])
    until(lambda: servers(home), 120, "its server is there")
    if number == signal.SIGINT:
        until(lambda: list(home.glob("store/work/*/scratch/state.json")), 120, "it trains")
        os.killpg(run.pid, number)  # as Ctrl-C in a terminal: to the whole process group
        assert run.wait(timeout=120) == 130
    elif number:
        run.send_signal(number)
    assert run.wait(timeout=120) == {signal.SIGKILL: -9, signal.SIGINT: 130, None: 0}[number]
    until(lambda: not servers(home), 30, "its server has ended")
