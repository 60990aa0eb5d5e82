"""The server of a run that has none of its own ends with it, however the run ends."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support import WORDS


@pytest.fixture
def environment(tmp_path):
    ours = {"FOUNDRY_HOME": str(tmp_path / "home"), "FOUNDRY_KINDS": "tests.kinds"}
    return {k: v for k, v in os.environ.items() if k != "PREFECT_API_URL"} | ours


def servers(home):
    """Pids of temporary servers of this home."""
    mark = f"FOUNDRY_HOME={home}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes()
            if b"flows.deployment.entry\0server" in command and mark in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def until(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize("number", [signal.SIGKILL, None])
def test_the_temporary_server_ends_with_its_run(environment, number):
    slow = ("-o", "model.seconds=60") if number else ()
    run = subprocess.Popen(
        [sys.executable, "-m", "flows.cli", "run", str(WORDS), *slow],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    home = environment["FOUNDRY_HOME"]
    until(lambda: servers(home), 120)
    if number:
        run.send_signal(number)
    assert run.wait(timeout=120) == (-number if number else 0)
    until(lambda: not servers(home), 30)
