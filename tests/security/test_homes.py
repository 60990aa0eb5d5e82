"""Asking makes nothing; the home is found from below; one that cannot be used is named."""

import os
import subprocess
import sys

import pytest

from flows.cli import main
from foundry_core import home as module
from foundry_core.home import home_dir, keep
from foundry_core.lineage.event_types import RunFinished, RunStarted
from foundry_core.lineage.events import EventLog

QUESTIONS = [
    ["plan", "demo-fast"],
    ["run", "demo-fast", "--dry-run"],
    ["ablate", "demo-fast", "--vary", "llm.training.steps=1,2", "--dry-run"],
    ["lineage", "runs"],
    ["lineage", "sql", "select 1"],
    ["lineage", "tag"],
    ["lineage", "pin"],
    ["lineage", "gc"],
    ["lineage", "verify"],
    ["lineage", "trace", "12345678"],
    ["report", "nothing"],
    ["status"],
    ["stages"],
    ["models"],
    ["serve", "--help"],
]


@pytest.fixture
def place(tmp_path, monkeypatch):
    for name in ("FOUNDRY_HOME", "FOUNDRY_STORE", "PREFECT_HOME", "PREFECT_API_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("words", QUESTIONS, ids=" ".join)
def test_a_question_makes_no_home(place, words, capsys):
    try:
        code = main(words)
    except SystemExit as end:
        code = end.code
    assert code in (0, 2)
    # A plan without a home takes seconds, and says why.
    said = [one for one in capsys.readouterr().err.splitlines() if " code once: " not in one]
    assert len(said) == (1 if code else 0)
    assert list(place.iterdir()) == []


def test_status_in_a_process_of_its_own_makes_no_home(place):
    path = os.environ.get("PYTHONPATH", os.getcwd())
    command = [sys.executable, "-P", "-m", "flows.cli", "status"]
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert list(place.iterdir()) == []


def test_a_question_makes_no_named_home_either(place, monkeypatch):
    monkeypatch.setenv("FOUNDRY_HOME", str(place / "named"))
    assert main(["plan", "demo-fast"]) == 0
    assert main(["lineage", "runs"]) == 0
    assert list(place.iterdir()) == []


def test_caches_are_kept_where_there_is_a_home(place):
    keep("some.json", {"a": 1})
    assert list(place.iterdir()) == []
    (place / ".foundry").mkdir()
    keep("some.json", {"a": 1})
    assert (place / ".foundry" / "cache" / "some.json").exists()


def test_a_home_is_found_from_below_and_named(place, monkeypatch, capsys):
    (place / ".foundry").mkdir()
    below = place / "a" / "b"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert home_dir() == place / ".foundry"
    assert main(["lineage", "runs"]) == 0
    assert capsys.readouterr().err == f"foundry: the home is {place / '.foundry'}\n"
    assert list(below.iterdir()) == []


def test_the_nearest_home_counts_and_that_of_the_current_folder_is_not_named(
    place, monkeypatch, capsys
):
    (place / ".foundry").mkdir()
    below = place / "a"
    (below / ".foundry").mkdir(parents=True)
    monkeypatch.chdir(below)
    assert home_dir() == below / ".foundry"
    assert main(["lineage", "runs"]) == 0
    assert capsys.readouterr().err == ""


def test_a_named_home_wins(place, monkeypatch, capsys):
    (place / ".foundry").mkdir()
    monkeypatch.setenv("FOUNDRY_HOME", str(place / "named"))
    assert home_dir() == place / "named"
    assert main(["lineage", "runs"]) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("FOUNDRY_HOME", "")
    assert home_dir() == place / ".foundry"


def test_somebody_elses_home_above_is_not_used(place, monkeypatch):
    (place / ".foundry").mkdir()
    below = place / "a"
    below.mkdir()
    monkeypatch.chdir(below)
    mine = os.geteuid()
    monkeypatch.setattr(module.os, "geteuid", lambda: mine + 1)
    assert home_dir() == below / ".foundry"
    monkeypatch.chdir(place)
    assert home_dir() == place / ".foundry"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a link to another user")
def test_somebody_elses_link_to_a_folder_of_ours_is_not_used(place, monkeypatch):
    (place / "ours").mkdir()
    (place / ".foundry").symlink_to(place / "ours")
    (place / "a").mkdir()
    monkeypatch.chdir(place / "a")
    assert home_dir() == place / ".foundry"
    os.lchown(place / ".foundry", 12345, 12345)
    assert home_dir() == place / "a" / ".foundry"


def test_a_file_of_that_name_is_no_home(place, monkeypatch):
    (place / ".foundry").touch()
    below = place / "a"
    below.mkdir()
    monkeypatch.chdir(below)
    assert home_dir() == below / ".foundry"


@pytest.mark.parametrize(
    "words", [["plan", "demo-fast"], ["lineage", "runs"], ["report", "r"], ["lineage", "rebuild"]]
)
def test_a_home_that_is_a_file_is_named_in_one_line(place, words, capsys):
    (place / ".foundry").touch()
    assert main(words) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert str(place / ".foundry") in line


def test_a_report_that_cannot_be_written_is_one_line(place, capsys):
    log = EventLog(place / ".foundry" / "store" / "events")
    log.append(RunStarted(run_id="r1", pipeline="p", stages=[]))
    log.append(RunFinished(run_id="r1", status="succeeded"))
    assert main(["lineage", "runs"]) == 0
    (place / ".foundry" / "runs").touch()
    capsys.readouterr()
    assert main(["report", "r1"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert f"the home {place / '.foundry'} cannot be used" in line


def test_questions_are_answered_where_nothing_can_be_written(place, monkeypatch, capsys):
    """As on a disk that is mounted for reading, before there is an index."""
    EventLog(place / "store" / "events").append(RunStarted(run_id="r1", pipeline="p", stages=[]))
    monkeypatch.setenv("FOUNDRY_STORE", str(place / "store"))
    (place / ".foundry").mkdir()
    (place / ".foundry" / ".lineage.duckdb.lock").mkdir()  # not even root can open it for writing
    assert main(["lineage", "runs"]) == 0
    out, err = capsys.readouterr()
    assert "r1" in out and err == ""
