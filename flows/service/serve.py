"""The processes behind `foundry serve`: Prefect's server and one worker for each pool.

Each is a child that dies with this process. One that ends by itself is started again, so that a
crash of the server costs a pause; one that ends five times within a minute is given up.
"""

import os
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from flows import processes
from flows.deployment.server import (
    answers,
    database_made,
    entry_command,
    last_lines,
    not_started,
    server_settings,
    service_environment,
    spawn,
    stop,
)
from flows.prefect import api_url
from foundry_core.errors import FoundryError
from foundry_core.home import home_dir

_STOP_SECONDS = 12.0
_CHECK = "`foundry serve --check` looks for the cause"
_MOST_RESTARTS, _WITHIN_SECONDS = 5, 60.0
# Cancelling is seen through an event; these are for when the event is lost.
_CHILD_SETTINGS = {
    "PREFECT_WORKER_QUERY_SECONDS": "2",
    "PREFECT_WORKER_HEARTBEAT_SECONDS": "10",
    "PREFECT_WORKER_CANCELLATION_POLL_SECONDS": "10",
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    "PREFECT_RUNNER_AUTO_INSTALL_DEPENDENCIES": "false",
    # A server that restarts takes some 10 s; calls are repeated for minutes.
    "PREFECT_CLIENT_MAX_RETRIES": "8",
    "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
    # `prefect deployment run --watch` shows the log of the run, and so why it failed.
    "PREFECT_SERVER_LOGS_STREAM_OUT_ENABLED": "true",
    "PREFECT_SERVER_LOGS_STREAM_PUBLISHING_ENABLED": "true",
}


@dataclass
class Service:
    """One child process and its log."""

    name: str
    arguments: tuple[str, ...]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    ends: deque[float] = field(default_factory=lambda: deque(maxlen=_MOST_RESTARTS))

    def start(self, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        """Its child process, recorded under <home>/processes."""
        self.process = spawn(entry_command(*self.arguments), self.log, environment)
        processes.record("service", self.name, self.process.pid, facts={"log": str(self.log)})
        return self.process

    @property
    def ended(self) -> bool:
        """Whether it does not run."""
        return self.process is None or self.process.poll() is not None

    def stop(self, patience: float = _STOP_SECONDS) -> None:
        if self.process is None:
            return
        stop(self.process, patience)
        for entry in processes.entries("service"):
            if entry.id == self.name:
                entry.forget()


class Services:
    """The server and the workers of this machine."""

    def __init__(
        self, host: str, port: int, names: tuple[str, ...], password: str, pools: tuple[str, ...]
    ) -> None:
        """names: what else browsers may call the server. password: empty for none."""
        self.url = api_url(host, port)
        logs = home_dir() / "serve"
        chosen = {name: os.environ.get(name, value) for name, value in _CHILD_SETTINGS.items()}
        chosen |= {"PREFECT_API_URL": self.url, "FOUNDRY_HOME": str(home_dir())}
        chosen |= server_settings(self.url, password)
        self._environment = service_environment(**chosen)
        arguments = ("server", host, str(port), *names)
        self.server = Service("server", arguments, logs / "server.log")
        machine = socket.gethostname()
        self.workers = [
            Service(f"worker-{pool}", ("worker", pool, f"{machine} {pool}"), logs / f"{pool}.log")
            for pool in pools
        ]

    def start_server(self) -> None:
        """Returns when it answers. Raises FoundryError with its last words when it does not."""
        with database_made():
            process = self.server.start(self._environment)
            if not answers(self.url, process):
                self.server.stop(0)
                raise not_started(self.server.log, "Prefect server", _CHECK)

    def start_workers(self) -> None:
        for worker in self.workers:
            worker.start(self._environment)

    def watch(self, say: Callable[[str], None], died: Callable[[], None]) -> NoReturn:
        """Starts again what ends, until a signal comes, and calls `died`. Raises FoundryError when
        starting again does not help."""
        while True:
            time.sleep(0.5)
            for service in (self.server, *self.workers):
                if service.ended:
                    self._restart(service, say)
                    died()

    def _restart(self, service: Service, say: Callable[[str], None]) -> None:
        now = time.monotonic()
        service.ends.append(now)
        often = len(service.ends) == _MOST_RESTARTS
        if often and now - service.ends[0] < _WITHIN_SECONDS:
            raise FoundryError(
                f"{service.name} ended {_MOST_RESTARTS} times within {_WITHIN_SECONDS:.0f} s "
                f"(log: {service.log}):\n{last_lines(service.log)}",
                _CHECK,
            )
        code = service.process.returncode if service.process else None
        say(f"{service.name} ended with {code}: started again")
        service.start(self._environment)

    def stop_workers(self) -> None:
        """Before the server: they report their runs' ends to it. All together take as long as the
        slowest."""
        threads = [threading.Thread(target=worker.stop) for worker in self.workers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
