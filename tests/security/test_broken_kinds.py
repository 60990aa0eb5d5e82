"""A stage kind of one's own that is broken is named, and takes no other with it."""

import os
import subprocess
import sys

import pytest

from flows.cli import main
from foundry_core.errors import FoundryError
from foundry_core.pipeline.registry import stage_kind

BROKEN = {
    "syntax": ("STAGE = (\n", "SyntaxError"),
    "raises": ("STAGE = 1 / 0\n", "ZeroDivisionError: division by zero"),
    "leaves": ("import sys\nsys.exit(3)\nSTAGE = 1\n", "SystemExit: 3"),
    "absent": ("import no_such_module\nSTAGE = 1\n", "ModuleNotFoundError"),
    "number": ("STAGE = 3\n", "STAGE is no stage"),
    "latin": ("STAGE = 'é'\n".encode("latin-1"), "SyntaxError"),
}


@pytest.fixture
def broken_kinds(tmp_path, monkeypatch):
    folder = tmp_path / "broken_lab"
    folder.mkdir()
    (folder / "__init__.py").touch()
    for name, (source, _) in BROKEN.items():
        data = source if isinstance(source, bytes) else source.encode()
        (folder / f"broken_{name}.py").write_bytes(data)
    os.mkfifo(folder / "pipe.py")
    monkeypatch.setenv("FOUNDRY_KINDS", "broken_lab")
    monkeypatch.setenv("FOUNDRY_HOME", str(tmp_path / "home"))
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for module in [name for name in sys.modules if name.startswith("broken_lab")]:
        del sys.modules[module]


@pytest.mark.usefixtures("broken_kinds")
def test_the_others_are_listed_and_the_broken_named(capsys):
    assert main(["stages"]) == 1
    out, err = capsys.readouterr()
    assert "train_llm" in out
    lines = err.splitlines()
    assert len(lines) == len(BROKEN)
    for name, (_, problem) in BROKEN.items():
        [line] = [line for line in lines if f"kind 'broken_{name}' cannot be used" in line]
        assert problem in line and f"broken_lab.broken_{name}" in line


@pytest.mark.usefixtures("broken_kinds")
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_one_is_refused_where_it_is_asked_for(name, capsys):
    with pytest.raises(FoundryError, match=f"broken_{name}"):
        stage_kind(f"broken_{name}")
    assert main(["stages", f"broken_{name}"]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.usefixtures("broken_kinds")
def test_other_kinds_are_planned_as_ever():
    assert main(["plan", "demo-fast"]) == 0


@pytest.mark.parametrize("package", ["a/b", ".relative", "..", "no.such.package", "x\ny", "os"])
def test_a_package_that_is_none_is_named(monkeypatch, package, capsys):
    monkeypatch.setenv("FOUNDRY_KINDS", package)
    assert main(["stages"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("foundry: FOUNDRY_KINDS: ")


def test_a_package_whose_parent_is_broken_is_named(tmp_path):
    (tmp_path / "broken_parent").mkdir()
    (tmp_path / "broken_parent" / "__init__.py").write_text("(\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", os.getcwd())])
    environment = os.environ | {"FOUNDRY_KINDS": "broken_parent.kinds", "PYTHONPATH": path}
    command = [sys.executable, "-P", "-m", "flows.cli", "stages"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1 and "'broken_parent.kinds'" in done.stderr
