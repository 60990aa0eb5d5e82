"""`make clean` removes what can be made again; data go only where a person says so; a Python that
is too old is said before anything is made."""

import os
import pty
import shutil
import subprocess

import pytest

from tests.conftest import REPOSITORY

DATA = (".foundry/store/train_llm/abc/artifact.json", ".foundry/__pycache__/x.pyc")
KEPT = (".venv/lib/__pycache__/x.pyc", "code.py", ".git/__pycache__/x", "data/x.bin", *DATA)
PRODUCTS = ("__pycache__/x.pyc", "a/b/__pycache__/x.pyc", "foundry.egg-info/x", ".pytest_cache/x")


@pytest.fixture
def place(tmp_path):
    if shutil.which("make") is None:
        pytest.skip("no make")
    shutil.copy(REPOSITORY / "Makefile", tmp_path)
    for name in (*KEPT, *PRODUCTS):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def make(place, *words, stdin=subprocess.DEVNULL):
    environment = {name: value for name, value in os.environ.items() if name != "CONFIRM"}
    command = ["make", "-C", str(place), *words]
    return subprocess.run(
        command, stdin=stdin, env=environment, capture_output=True, text=True, timeout=60
    )


def left(place, names):
    return [name for name in names if (place / name).exists()]


def test_clean_leaves_data_and_the_environment(place):
    assert make(place, "clean").returncode == 0
    assert left(place, KEPT) == list(KEPT)
    assert left(place, PRODUCTS) == []


@pytest.mark.parametrize("words", [[], ["CONFIRM=no"], ["CONFIRM="], ["CONFIRM=y"]])
def test_distclean_without_a_person_removes_nothing(place, words):
    done = make(place, "distclean", *words)
    assert done.returncode != 0 and "nothing was removed" in done.stderr
    assert left(place, (*KEPT, *PRODUCTS)) == [*KEPT, *PRODUCTS]


def test_distclean_that_is_confirmed_removes_data(place):
    assert make(place, "distclean", "CONFIRM=yes").returncode == 0
    assert not (place / ".foundry").exists()
    assert left(place, KEPT) == [name for name in KEPT if name not in DATA]
    assert left(place, PRODUCTS) == []


@pytest.mark.parametrize(("answer", "gone"), [("yes", True), ("no", False), ("", False)])
def test_distclean_asks_a_person(place, answer, gone):
    person, terminal = pty.openpty()
    try:
        os.write(person, f"{answer}\n".encode())
        done = make(place, "distclean", stdin=terminal)
    finally:
        os.close(person)
        os.close(terminal)
    assert "remove .foundry, with all artifacts" in done.stdout
    assert (done.returncode == 0) is gone
    assert (place / ".foundry").exists() is not gone


def test_a_python_that_is_too_old_is_said_before_anything_is_made(place, tmp_path):
    shutil.rmtree(place / ".venv")
    for name in ("pyproject.toml", "constraints.txt"):
        shutil.copy(REPOSITORY / name, place)
    old = tmp_path / "python3.9"
    old.write_text('#!/bin/sh\ncase "$1" in -c) exit 1;; --version) echo Python 3.9.2;; esac\n')
    old.chmod(0o755)
    done = make(place, "setup", f"PYTHON={old}")
    assert done.returncode != 0
    assert f"Python 3.11 to 3.13 is needed, {old} is Python 3.9.2" in done.stderr
    assert "PYTHON=/path/to/python3.12" in done.stderr
    assert not (place / ".venv").exists()
