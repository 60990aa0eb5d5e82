"""Processes of this program import the installed packages, whatever the current folder holds."""

import json
import os
import subprocess
import sys

import pytest

from foundry_core.errors import FoundryError
from foundry_core.execution.control import ChildResult
from foundry_core.execution.python import check_origins, package_origins, python_command
from tests.conftest import REPOSITORY
from tests.support import WORDS


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    """A current folder with packages that are called like ours, and break who imports them."""
    for name in ("flows", "tasks", "foundry_core", "stage_configs"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        text = f"raise SystemExit('the {name} of the current folder')\n"
        (tmp_path / "mine" / name / "__init__.py").write_text(text)
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FOUNDRY_KINDS", "tests.kinds")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    monkeypatch.delenv("FOUNDRY_STORE", raising=False)
    return tmp_path / "mine"


def output(command, folder):
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def python(code, folder):
    return output([sys.executable, "-P", "-c", code], folder)


def test_a_plan_is_made_there(own_folder):
    told = output(python_command("flows.cli", "plan", str(WORDS), "--json"), own_folder)
    assert {row["action"] for row in json.loads(told)["stages"]} == {"run"}


def test_a_run_and_its_children_work_there(own_folder):
    told = python("from tests.runs import run\nprint(sorted(run()[0].values()))", own_folder)
    assert told == "['run', 'run', 'run', 'run']\n"


@pytest.mark.slow("starts Ray")
def test_ray_workers_work_there(own_folder):
    code = (
        "from foundry_core.files import sha256_hex\n"
        "from foundry_core.parallel import ordered_map\n"
        "print([d[:4] for d in ordered_map(sha256_hex, ['a', 'b'], workers=2)])"
    )
    assert python(code, own_folder) == "['ca97', '3e23']\n"


def test_a_process_of_other_packages_says_so():
    check_origins(package_origins())
    other = {**package_origins(), "tasks": "/elsewhere/tasks/__init__.py"}
    with pytest.raises(FoundryError, match=r"package tasks is .* here, but /elsewhere/"):
        check_origins(other)


def test_a_child_of_other_packages_leaves_one_clear_line(tmp_path):
    """Whatever else job.json says: another version may spell it otherwise."""
    job = {"parent": os.getpid(), "out": str(tmp_path), "origins": {"foundry_core": "/elsewhere"}}
    (tmp_path / "job.json").write_text(json.dumps(job))
    command = python_command("foundry_core.execution.child", str(tmp_path))
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == 1
    result = ChildResult.read(tmp_path)
    assert "package foundry_core is" in result.error and "name its folder" in result.hint
