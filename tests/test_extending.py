"""docs/extending.md as an outside package: its files, its entry points, its own tests."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

GUIDE = REPOSITORY / "docs" / "extending.md"
EXAMPLE = Path(__file__).parent / "extending"


def files_of_the_guide() -> dict[str, str]:
    """Every `**`path`**` that is followed by a block of code."""
    blocks = re.findall(r"\*\*`([\w./]+)`\*\*[^\n]*\n\n```\w+\n(.*?)```", GUIDE.read_text(), re.S)
    return dict(blocks)


def install(folder: Path) -> None:
    """What pip would do: the package's files and the metadata of its pyproject.toml."""
    files = files_of_the_guide()
    assert sorted(files) == [
        *(f"acme/acme_{name}.py" for name in ("csv", "mlp", "single", "statsd", "track")),
        "pyproject.toml",
    ]
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "acme" / "__init__.py").touch()
    project = tomllib.loads(files["pyproject.toml"])["project"]
    lines = []
    for group, entries in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
    metadata = folder / "acme-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")


@pytest.mark.slow("an outside package's own tests, with trainings and an exam")
def test_five_additions_from_outside(tmp_path):
    install(tmp_path)
    for file in EXAMPLE.iterdir():
        if file.suffix in (".py", ".yaml"):
            shutil.copy(file, tmp_path / file.name)
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "acme_tests.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-2000:]


def test_one_line_registers_a_member():
    """The guide's promise: one file, and at most one line, per addition."""
    toml = tomllib.loads(files_of_the_guide()["pyproject.toml"])
    entries = [e for group in toml["project"]["entry-points"].values() for e in group.items()]
    assert len(entries) == 5
