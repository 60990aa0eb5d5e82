"""Services and runs that are started in a folder with a flows/, tasks/ and foundry_core/ of its own
(Prefect's usual layout) run the installed packages."""

import os
import subprocess
from pathlib import Path

import pytest

from flows.deployment.server import entry_command, service_environment
from foundry_core.execution.python import python_command
from tests.orchestration import REPOSITORY, Serving
from tests.support import WORDS


@pytest.fixture
def folder(tmp_path):
    for package in ("flows", "tasks", "foundry_core"):
        path = tmp_path / "mine" / package / "__init__.py"
        path.parent.mkdir(parents=True)
        path.write_text(f"raise SystemExit('this is my own {package}')\n")
    return tmp_path / "mine"


def environment(home: Path) -> dict[str, str]:
    """The checkout is the installation here, by PYTHONPATH."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    own = {"FOUNDRY_HOME": str(home), "FOUNDRY_KINDS": "tests.kinds"}
    return kept | own | {"PYTHONPATH": str(REPOSITORY)}


def test_services_are_started_with_the_safe_path(monkeypatch):
    assert entry_command("engine")[1:3] == ["-P", "-m"]
    assert service_environment(A="b")["PYTHONSAFEPATH"] == "1"
    assert "-P -m" in (REPOSITORY / "flows" / "prefect.yaml").read_text()


def test_plan_and_run(folder, tmp_path):
    for command in ("plan", "run"):
        done = subprocess.run(
            python_command("flows.cli", command, str(WORDS), "--json"),
            cwd=folder,
            env=environment(tmp_path / "home"),
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == 0, done.stderr
        assert "my own" not in done.stdout + done.stderr


@pytest.mark.slow("Prefect's server and workers")
@pytest.mark.timeout(600)
def test_serve_and_a_run_through_it(folder, tmp_path):
    """The server, both workers, the flow run and its training are started from the folder."""
    with Serving(tmp_path / "home", folder=folder) as serving:
        assert serving.ended(serving.submit("foundry/full", pipeline="exams"), 400) == "COMPLETED"
        assert len(serving.trainings("COMPLETED")) == 1
