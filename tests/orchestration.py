"""`foundry serve` on a free port and a home of its own, for tests of the whole round."""

import base64
import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from foundry_core.execution.python import python_command

REPOSITORY = Path(__file__).resolve().parents[1]
START_SECONDS = 240
CLI = tuple(python_command("flows.cli"))
PREFECT = tuple(python_command("prefect"))
FINAL = ("COMPLETED", "FAILED", "CANCELLED", "CRASHED")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """The condition's first true value. Raises AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.3)
    raise AssertionError(f"not within {seconds:g} s: {what}")


class Serving:
    """One home with its server; a context manager that leaves no process behind."""

    def __init__(
        self,
        home: Path,
        *,
        gpu_limit: int = 1,
        settings: dict[str, str] | None = None,
        folder: Path = REPOSITORY,
    ):
        """folder: where everything is started."""
        self.home, self.port, self._limit, self._folder = home, free_port(), gpu_limit, folder
        self.url = f"http://127.0.0.1:{self.port}/api"
        self.process: subprocess.Popen | None = None
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
        self.environment = {
            **inherited,
            "FOUNDRY_HOME": str(home),
            "FOUNDRY_KINDS": "tests.kinds",
            "FOUNDRY_PIPELINES": str(REPOSITORY / "tests" / "kinds"),
            "OMP_NUM_THREADS": "1",
            # Stands for the installation: the tests' own kinds are found there, too.
            "PYTHONPATH": str(REPOSITORY),
            **(settings or {}),
        }

    def __enter__(self) -> "Serving":
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.process.kill()
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)

    @property
    def log(self) -> Path:
        return self.home / "serve.log"

    def start(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        before = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*CLI, "serve", "--port", str(self.port), "--gpu-limit", str(self._limit)],
                stdout=log,
                stderr=log,
                env=self.environment,
                cwd=self._folder,
            )

        def ready() -> bool:
            text = self.log.read_text()[before:]
            assert self.process.poll() is None, f"foundry serve ended:\n{text}"
            return "ready in" in text

        until(ready, START_SECONDS, "foundry serve is ready")

    def foundry(self, *arguments: str, timeout: float = 180) -> subprocess.CompletedProcess:
        return self._call([*CLI, *arguments], timeout)

    def prefect(self, *arguments: str, timeout: float = 180) -> subprocess.CompletedProcess:
        known = {"PREFECT_API_URL": self.url, "PREFECT_API_AUTH_STRING": self.password}
        return self._call([*PREFECT, *arguments], timeout, **known)

    def _call(self, command: list[str], timeout: float, **more: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**self.environment, **more},
            cwd=self._folder,
        )

    def api(self, path: str, body: Any = None) -> Any:
        """GET without a body, POST with one. Repeated, as Prefect's client does, when the server is
        too busy."""
        for _ in range(20):
            try:
                return self._once(path, body)
            except urllib.error.HTTPError as error:
                if error.code < 500:
                    raise
                time.sleep(1.0)
        return self._once(path, body)

    @property
    def password(self) -> str:
        return (self.home / "serve" / "password").read_text()

    def headers(self) -> dict[str, str]:
        """What a page of the UI sends: the password, and the token it was given."""
        encoded = base64.b64encode(self.password.encode()).decode()
        known = {"Authorization": f"Basic {encoded}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url}/csrf-token?client=tests", headers=known)
        with urllib.request.urlopen(request, timeout=60) as answer:
            token = json.loads(answer.read())["token"]
        return {**known, "Prefect-Csrf-Token": token, "Prefect-Csrf-Client": "tests"}

    def _once(self, path: str, body: Any) -> Any:
        request = urllib.request.Request(
            self.url + path,
            data=None if body is None else json.dumps(body).encode(),
            headers=self.headers(),
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read() or b"null")

    def submit(self, deployment: str, **parameters: Any) -> str:
        """Starts a deployment as the UI does; the flow run's id."""
        identity = self.api(f"/deployments/name/{deployment}")["id"]
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        return self.api(f"/deployments/{identity}/create_flow_run", body)["id"]

    def run(self, flow_run: str) -> dict[str, Any]:
        return self.api(f"/flow_runs/{flow_run}")

    def state(self, flow_run: str) -> str:
        return self.run(flow_run)["state"]["type"]

    def ended(self, flow_run: str, seconds: float = 180) -> str:
        """Waits for the end; the state it ended in."""
        ask = lambda: self.state(flow_run)  # noqa: E731
        return until(lambda: (s := ask()) in FINAL and s, seconds, f"{flow_run} has ended")

    def cancel(self, flow_run: str) -> None:
        """The UI's Cancel button."""
        state = {"type": "CANCELLING", "name": "Cancelling"}
        self.api(f"/flow_runs/{flow_run}/set_state", {"state": state})

    def flow_runs(self, *states: str) -> list[dict[str, Any]]:
        """Runs in these states; by default all that have not ended."""
        wanted = states or ("SCHEDULED", "PENDING", "RUNNING", "CANCELLING")
        filters = {"flow_runs": {"state": {"type": {"any_": list(wanted)}}}}
        return self.api("/flow_runs/filter", filters)

    def trainings(self, *states: str) -> list[dict[str, Any]]:
        return [run for run in self.flow_runs(*states) if "train" in run["tags"]]

    def processes(self) -> list[int]:
        """Running processes of this home other than this one, whoever started them."""
        mark = f"FOUNDRY_HOME={self.home}\0".encode()
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                environment = (folder / "environ").read_bytes()
                zombie = (folder / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
            except OSError:
                continue
            if mark in environment and not zombie and int(folder.name) != os.getpid():
                found.append(int(folder.name))
        return found

    def pids(self, kind: str) -> dict[str, int]:
        """Recorded processes of a kind: id → pid."""
        entries = [json.loads(p.read_text()) for p in (self.home / "processes").glob("*.json")]
        return {one["id"]: one["process"]["pid"] for one in entries if one["kind"] == kind}

    def children(self) -> list[int]:
        """Processes in which stages run."""
        return [pid for pid in self.processes() if b"foundry_core.execution.child" in _command(pid)]

    def leases(self) -> list[str]:
        return [path.name for path in (self.home / "store" / "leases").glob("[!.]*")]

    def lineage(self, query: str) -> list[dict[str, Any]]:
        answer = self.foundry("lineage", "sql", query, "--json")
        assert answer.returncode == 0, answer.stderr
        return json.loads(answer.stdout)


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def overrides(pairs: Iterable[str]) -> list[dict[str, str]]:
    """'model.steps=3' as the form's rows."""
    return [dict(zip(("path", "value"), pair.split("=", 1), strict=True)) for pair in pairs]
