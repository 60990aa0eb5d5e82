"""The Prefect server of a run that has none: a child process that ends with the run.

It has a session of its own, so that Ctrl-C in a terminal reaches the run first, which then records
its end; killed by force, the run takes it along (PR_SET_PDEATHSIG).
"""

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from flows.deployment.server import (
    START_SECONDS,
    answers,
    database_made,
    entry_command,
    last_lines,
    service_environment,
)
from flows.prefect.api import configured, connected
from flows.prefect.settings import HOST, api_url
from foundry_core.errors import FoundryError

_TRIES = 3
_STOP_SECONDS = 5.0
_SETTINGS = {
    # Prefect's own name for a server without scheduler: it must not start a home's scheduled runs.
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT_SERVER_UI_ENABLED": "false",
    "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
}


@contextlib.contextmanager
def temporary_server(log: Path) -> Iterator[None]:
    """In the block there is a Prefect server: the configured one, or one that is started here and
    writes to `log`. FoundryError when it does not start."""
    if configured():
        yield
        return
    with contextlib.ExitStack() as stack:
        with database_made():
            url = _started(log, stack)
        with connected(url):
            yield


def _started(log: Path, stack: contextlib.ExitStack) -> str:
    """The URL of a server that answers; `stack` ends it."""
    log.parent.mkdir(parents=True, exist_ok=True)
    for _ in range(_TRIES):
        # Another process may take the port before the server does: then it ends, and is started
        # again on another.
        port = _free_port()
        with log.open("ab") as output:
            process = subprocess.Popen(
                entry_command("server", HOST, str(port)),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=service_environment(**_SETTINGS),
                start_new_session=True,
            )
        stack.callback(_stop, process)
        url = api_url(HOST, port)
        if answers(url, process):
            return url
        if process.poll() is None:
            break
    raise FoundryError(
        f"the temporary Prefect server did not start within {START_SECONDS:.0f} s (log: {log}):\n"
        f"{last_lines(log)}",
        f"is the database in {os.environ['PREFECT_HOME']} whole, and its disk not full? "
        "A running `foundry serve` is used instead of a temporary server",
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_SECONDS)
    process.kill()
    process.wait()
