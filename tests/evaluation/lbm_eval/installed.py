"""Installs the stand-in as LBM Eval's users have it: wheels in an environment of their own, or one
program."""

import json
import sys
from pathlib import Path

STAND_IN = Path(__file__).with_name("stand_in.py")


class Installed:
    """outcomes: 'skill/scenario' → what becomes of it."""

    def __init__(self, folder: Path, outcomes: dict[str, str], *, alone: bool = False, **told):
        self.ledger, self.told = folder / "ledger", folder / "told.json"
        self.told.write_text(json.dumps({"ledger": str(self.ledger), "outcomes": outcomes, **told}))
        self.place = _program(folder) if alone else _environment(folder)

    def use(self, monkeypatch) -> None:
        monkeypatch.setenv("FOUNDRY_LBM_EVAL", str(self.place))
        monkeypatch.setenv("STAND_IN", str(self.told))

    @property
    def begun(self) -> list[str]:
        """The episodes that were begun, in order."""
        return self.ledger.read_text().split() if self.ledger.exists() else []


def _environment(folder: Path) -> Path:
    site = folder / "venv/lib/python3.11/site-packages"
    (site / "lbm_eval").mkdir(parents=True)
    (site / "lbm_eval/__init__.py").touch()
    (site / "lbm_eval/evaluate.py").write_text(STAND_IN.read_text())
    for wheel in ("lbm_eval", "robot_gym"):
        metadata = site / f"{wheel}-1.1.0rc2.dist-info"
        metadata.mkdir()
        (metadata / "RECORD").write_text(f"{wheel}/evaluate.py,sha256=x,1\n")
    binaries = folder / "venv/bin"
    binaries.mkdir()
    _script(binaries / "python", f'PYTHONPATH={site} exec {sys.executable} "$@"')
    _script(binaries / "evaluate", f'exec {binaries}/python -m lbm_eval.evaluate "$@"')
    return folder / "venv"


def _program(folder: Path) -> Path:
    program = folder / "lbm-in-a-container"
    _script(program, f'exec {sys.executable} {STAND_IN} "$@"')
    return program


def _script(path: Path, line: str) -> None:
    path.write_text(f"#!/bin/sh\n{line}\n")
    path.chmod(0o755)
