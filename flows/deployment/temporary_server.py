"""The Prefect server of a run that has none: a child process that ends with the run, also when that
is killed by force (PR_SET_PDEATHSIG)."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from flows.deployment.server import (
    answers,
    database_made,
    entry_command,
    not_started,
    server_settings,
    service_environment,
    spawn,
    stop,
)
from flows.prefect import HOST, api_url, secret
from flows.prefect.api import configured, connected

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
            url = _started(log, password := secret.new(), stack)
        with connected(url, password):
            yield


def _started(log: Path, password: str, stack: contextlib.ExitStack) -> str:
    """The URL of a server that answers; `stack` ends it."""
    for _ in range(_TRIES):
        # Another process may take the port before the server does: then it ends, and is started
        # again on another.
        port = _free_port()
        command = entry_command("server", HOST, str(port))
        url = api_url(HOST, port)
        settings = _SETTINGS | server_settings(url, password)
        process = spawn(command, log, service_environment(**settings))
        stack.callback(stop, process, _STOP_SECONDS)
        if answers(url, process):
            return url
        if process.poll() is None:
            break
    raise not_started(
        log,
        "temporary Prefect server",
        f"is the database in {os.environ['PREFECT_HOME']} whole, and its disk not full? "
        "A running `foundry serve` is used instead of a temporary server",
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
