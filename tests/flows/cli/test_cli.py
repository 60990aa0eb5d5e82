"""What the command line does where it cannot write or read what it should."""

import errno
import fcntl
import json
import os
import subprocess
import sys

import pytest

from flows.cli import main
from foundry_core.home import home_dir, store_uri
from foundry_core.lineage.event_types import AliasSet, RunStarted
from foundry_core.lineage.events import EventLog
from foundry_core.lineage.index import Index
from foundry_core.store.open import open_store

pytestmark = pytest.mark.usefixtures("known_code")

COMMANDS = ("models", "lineage runs", "lineage runs --json", "lineage sql bla --json", "--help")


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FOUNDRY_KINDS", "tests.kinds")
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    return tmp_path / "home"


@pytest.fixture
def log(home):
    log = EventLog(open_store(store_uri()).events_uri)
    log.append(RunStarted(run_id="r1", pipeline="words", stages=[]))
    return log


def command(line: str, stdout) -> tuple[int, str]:
    arguments = [sys.executable, "-m", "flows.cli", *line.split()]
    done = subprocess.run(arguments, stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=60)
    return done.returncode, done.stderr


@pytest.mark.parametrize("line", COMMANDS)
def test_output_without_room_is_one_line_and_1(log, line):
    with open("/dev/full", "w") as full:
        code, err = command(line, full)
    assert (code, err.count("\n")) == (1, 1)
    assert "the output cannot be written (No space left on device)" in err


@pytest.mark.parametrize("line", ["models", "lineage runs", "lineage runs --json", "--help"])
def test_nobody_reading_on_is_no_fault(log, line):
    reader, writer = os.pipe()
    os.close(reader)
    try:
        assert command(line, writer) == (0, "")
    finally:
        os.close(writer)


def test_other_failures_of_the_system_are_not_called_output(monkeypatch, capsys):
    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("flows.cli.commands.models.run", fail)
    with pytest.raises(OSError, match="Input/output error"):
        main(["models"])


def test_rebuild_names_unreadable_events_and_ends_with_1(log, capsys):
    name = log.append(AliasSet(alias="a@b", key="k"))
    log.blobs.delete(name)
    log.blobs.create(name, b"{")
    assert main(["lineage", "rebuild"]) == 1
    assert f"unreadable:\n  {name}: " in capsys.readouterr().out
    assert main(["lineage", "rebuild", "--json"]) == 1
    (unreadable,) = json.loads(capsys.readouterr().out)["unreadable"]
    assert unreadable.startswith(name)
    log.blobs.delete(name)
    assert main(["lineage", "rebuild"]) == 0
    assert "unreadable" not in capsys.readouterr().out


def test_a_home_that_cannot_be_written_is_read_as_it_is(log, tmp_path, monkeypatch, capsys):
    assert main(["lineage", "rebuild"]) == 0
    before = Index(home_dir() / "lineage.duckdb", log).advance()
    assert before.events == 0
    log.append(RunStarted(run_id="r2", pipeline="words", stages=[]))
    capsys.readouterr()

    def flock(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(fcntl, "flock", flock)
    for line in ("runs", "sql from(pipeline_run)", f"export {tmp_path / 'out'}"):
        assert main(["lineage", *line.split()]) == 0
        out, err = capsys.readouterr()
        assert "r2" not in out and "shown as it was last" in err
    assert main(["lineage", "rebuild"]) == 2
    assert "cannot be rebuilt" in capsys.readouterr().err


@pytest.mark.parametrize("form", ["csv", "openlineage"])
def test_an_export_to_a_file_is_refused_in_one_line(log, tmp_path, capsys, form):
    (tmp_path / "file").write_text("")
    assert main(["lineage", "export", str(tmp_path / "file"), "--format", form]) == 2
    err = capsys.readouterr().err
    assert "cannot be written" in err and err.count("\n") == 1
