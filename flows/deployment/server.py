"""A Prefect server as a child process: its command, its environment, the wait until it answers."""

import contextlib
import fcntl
import importlib.metadata
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from flows.processes import PARENT
from foundry_core.execution.python import python_command
from foundry_core.files import write_atomic

START_SECONDS = 120.0
_LOCK, _MARK, _DATABASE = "start.lock", "migrated", "prefect.db"


def entry_command(role: str, *arguments: str) -> list[str]:
    """The command of a service: see flows/deployment/entry.py."""
    return python_command("flows.deployment.entry", role, *arguments)


def service_environment(**settings: str) -> dict[str, str]:
    """What a service inherits: it dies with this process, and whatever it starts imports the
    installed packages, not a folder's own `flows/`."""
    return {**os.environ, **settings, PARENT: str(os.getpid()), "PYTHONSAFEPATH": "1"}


def healthy(url: str) -> bool:
    """Whether the API at `url` answers."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as answer:
            return answer.status == 200
    except (OSError, urllib.error.URLError):
        return False


def answers(url: str, process: subprocess.Popen[bytes], seconds: float = START_SECONDS) -> bool:
    """Waits for the server that was just started; False when it has ended or took too long."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        if healthy(url):
            return process.poll() is None
        time.sleep(0.2)
    return False


@contextlib.contextmanager
def database_made() -> Iterator[None]:
    """Around the start of a server, until it answers. The first one of a home makes Prefect's
    database; two that do so at once both fail, so the others wait here for the first."""
    home = Path(os.environ["PREFECT_HOME"])
    version = importlib.metadata.version("prefect")
    with (home / _LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        mark = home / _MARK
        made = mark.exists() and mark.read_text() == version and (home / _DATABASE).exists()
        if not made:
            yield
            write_atomic(mark, version)
    if made:
        yield


def last_lines(log: Path, count: int = 8) -> str:
    """The end of a log, for a message."""
    lines = log.read_text(errors="replace").strip().splitlines()
    return "\n".join(lines[-count:])
