"""A notebook in another process that holds the index open does not disturb a running pipeline."""

import subprocess
import sys

import pytest

from foundry_core.lineage import queries
from tests.runs import run

# As a person would write it: open, look, keep open until asked to end, look again.
NOTEBOOK = """
import sys, duckdb
{connect}
print(db.execute("select count(*) from artifact").fetchone()[0], flush=True)
sys.stdin.readline()
print(db.execute("select count(*) from artifact").fetchone()[0], flush=True)
"""
WAYS = {
    "our reader": "from foundry_core.lineage import queries; db = queries.connect()",
    "read-only": "db = duckdb.connect(sys.argv[1], read_only=True)",
    "read-write": "db = duckdb.connect(sys.argv[1])",
}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FOUNDRY_KINDS", "tests.kinds")
    return tmp_path / "home"


@pytest.mark.parametrize("way", WAYS)
def test_an_open_notebook_does_not_disturb_a_run(home, way):
    run()
    index = home / "lineage.duckdb"
    command = [sys.executable, "-c", NOTEBOOK.format(connect=WAYS[way]), str(index)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as notebook:
        assert notebook.stdout.readline().strip() == "4", notebook.stderr.read()
        actions, done = run("first.word=uno", "second.word=dos")
        assert set(actions.values()) == {"run"}
        connection = queries.connect()
        (found,) = queries.sql(connection, "select count(*) as n from artifact")
        connection.close()
        assert found["n"] == 8
        # What is open keeps answering; a reader that sees the file sees whole runs only.
        out, err = notebook.communicate("\n", timeout=60)
    assert notebook.returncode == 0, err
    assert out.strip() in ("4", "8")
    # A writer that closes may leave its own state behind: the next run is not misled by it.
    assert set(run("first.word=uno", "second.word=dos")[0].values()) == {"reuse"}
    connection = queries.connect()
    assert queries.show(connection, done.artifact("total").key)["kind"] == "measure"
    connection.close()
