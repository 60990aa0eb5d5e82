"""Services as child processes: how they start and stop, and the wait until a server answers."""

import contextlib
import fcntl
import importlib.metadata
import json
import os
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from flows.prefect import secret
from flows.processes import PARENT, wait_until
from flows.signals import STOP
from foundry_core.errors import FoundryError
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


def server_settings(url: str, password: str) -> dict[str, str]:
    """Of a server at `url` that takes requests of its own pages alone, which name it as they were
    asked for, and of who knows the password; an empty one asks for none."""
    return {
        secret.SERVER: password,
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": url.removesuffix("/api"),
        "PREFECT_SERVER_UI_API_URL": "/api",
    }


def spawn(command: list[str], log: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Starts a service that writes to `log`. It has a session of its own, so that Ctrl-C in a
    terminal reaches its parent first, which then stops everything in order."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )


def stop(process: subprocess.Popen[bytes], patience: float) -> None:
    """Asked, then killed: its own children die with it."""
    process.send_signal(STOP)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(patience)
    process.kill()
    process.wait()


def healthy(url: str) -> bool:
    """Whether a Prefect API answers at `url`."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=10) as answer:
            return json.load(answer) is True
    except (OSError, ValueError):
        return False


def answers(url: str, process: subprocess.Popen[bytes]) -> bool:
    """Waits for the server that was just started; False when it has ended or took too long."""
    up = wait_until(lambda: process.poll() is not None or healthy(url), START_SECONDS, 0.2)
    return up and process.poll() is None


def not_started(log: Path, what: str, hint: str) -> FoundryError:
    """The error for a server that does not answer, with its last words."""
    return FoundryError(
        f"the {what} did not start within {START_SECONDS:.0f} s (log: {log}):\n{last_lines(log)}",
        hint,
    )


@contextlib.contextmanager
def database_made() -> Iterator[None]:
    """Around the start of a server, until it answers. The first one of a home makes Prefect's
    database; two that do so at once both fail, so the others wait here for the first."""
    home = Path(os.environ["PREFECT_HOME"])
    home.mkdir(parents=True, exist_ok=True)
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
