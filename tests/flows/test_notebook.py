"""The three functions for notebooks do what the command line does."""

import subprocess
import sys

import pytest

import flows
from foundry_core.errors import FoundryError
from tests.support import WORDS


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FOUNDRY_KINDS", "tests.kinds")
    monkeypatch.delenv("FOUNDRY_STORE", raising=False)


CELLS = """
import sys
import flows
words = sys.argv[1]
assert len(flows.plan(words).to_run()) == 4
result = flows.run(words, quiet=True)
assert result["status"] == "succeeded"
assert flows.plan(words).to_run() == []
changed = flows.plan(words, {"model.rate": 0.3})
assert [row.name for row in changed.to_run()] == ["model"]
first = flows.plan(words, {"first.word": "dos"}, only=["first"])
assert [row.name for row in first.to_run()] == ["first"]
with flows.lineage() as tables:
    found = tables.sql("select run_id, status from run_summary").fetchall()
assert found == [(result["run_id"], "succeeded")], found
"""


def test_plan_run_and_lineage():
    # A process of its own: Prefect's threads would stay in this one, which other tests fork.
    done = subprocess.run(
        [sys.executable, "-c", CELLS, str(WORDS)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_mistakes_are_errors_for_the_user():
    with pytest.raises(FoundryError, match="demoo"):
        flows.plan("demoo")
    with pytest.raises(FoundryError, match="no stage 'modle'"):
        flows.run(str(WORDS), {"modle.rate": 1})


def test_importing_the_package_imports_nothing_else():
    script = (
        "import sys, flows; print(*sorted(m for m in sys.modules if m.partition('.')[0] in "
        + ("{'duckdb', 'prefect', 'pydantic', 'foundry_core', 'torch'}))")
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""
