"""What is asked of every file of tests, and of what a run of them says."""

import ast
import gzip
import os
import re
import subprocess
import sys
from collections import Counter

import pytest

from tests.conftest import REPOSITORY

TESTS = REPOSITORY / "tests"


def bare_marks(source: str) -> list[int]:
    """Lines of `pytest.mark.slow` without a reason."""
    tree = ast.parse(source)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    told = {id(call.func) for call in calls if call.args and isinstance(call.args[0], ast.Constant)}
    marks = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    return sorted(
        mark.lineno
        for mark in marks
        if mark.attr == "slow" and ast.unparse(mark.value).endswith("mark") and id(mark) not in told
    )


def test_no_two_files_have_one_name():
    """Where a folder is no package, pytest imports a file by its name, and refuses a second one."""
    names = Counter(path.name for path in TESTS.rglob("test_*.py"))
    assert len(names) > 200
    assert {name: number for name, number in names.items() if number > 1} == {}


def test_every_slow_mark_says_why():
    """`make test` leaves out what is slow; `make test-all` names the reason of what took long."""
    found = {path: bare_marks(path.read_text(encoding="utf-8")) for path in TESTS.rglob("*.py")}
    bare = [f"{p.relative_to(TESTS)}:{line}" for p, lines in found.items() for line in lines]
    assert bare == [], 'e.g. pytest.mark.slow("starts Ray")'


def test_a_mark_without_a_reason_is_seen():
    source = """
pytestmark = [pytest.mark.slow, pytest.mark.timeout(9)]
@pytest.mark.slow("compiles")
def test_a(): ...
@pytest.mark.slow()
def test_b(slow): ...
CASES = [pytest.param(1, marks=pytest.mark.slow)]
"""
    assert bare_marks(source) == [2, 5, 7]


@pytest.mark.parametrize("data", [gzip.compress(b"a"), gzip.compress(b"b")])
def test_bytes_give_a_test_no_name_of_their_own(request, data):
    assert re.fullmatch(r".*\[data\d\]", request.node.name)


PASSED = """
import duckdb, pytest
import flows.prefect.flows

@pytest.mark.slow("reads the whole sky")
def test_a_slow_one():
    flows.prefect.flows

def test_another():
    held.append(duckdb.connect())

held = []
"""


def test_a_run_names_what_took_long_and_ends_with_its_last_line(tmp_path):
    """nanobind, which DuckDB is bound with, told of leaks below it."""
    (tmp_path / "test_sky.py").write_text(PASSED)
    (tmp_path / "conftest.py").write_text("from tests import conftest\nconftest.LONG_SECONDS = 0\n")
    ran = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "tests.conftest",
            "-q",
            "-c",
            os.devnull,
            str(tmp_path),
        ],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    assert ran.returncode == 0, ran.stdout
    assert re.search(
        r"^ +\d+ s  \S*test_sky.py::test_a_slow_one: reads the whole sky$", ran.stdout, re.MULTILINE
    )
    assert re.search(
        r"^ +\d+ s  \S*test_sky.py::test_another: not marked slow$", ran.stdout, re.MULTILINE
    )
    assert re.fullmatch(r"2 passed.* in .*s", ran.stdout.splitlines()[-1]), ran.stdout
