"""Helpers for tests of the machinery: small kinds, documents, stores in a temporary home."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from foundry_core.config.overrides import apply_overrides, parse_override
from foundry_core.pipeline.graph import Pipeline, build_pipeline
from foundry_core.pipeline.stage import Stage
from tests.kinds import emit, measure, train

WORDS = Path(__file__).parent / "kinds" / "pipeline.yaml"
KINDS: Mapping[str, type[Stage]] = {
    "emit": emit.STAGE,
    "measure": measure.STAGE,
    "train": train.STAGE,
}


def install_kinds(folder: Path, monkeypatch: pytest.MonkeyPatch, files: Mapping[str, str]) -> Path:
    """A lab's own package of stage kinds below `folder`, known to this process and to children."""
    package = folder / f"lab_{folder.name.replace('-', '_')}"
    monkeypatch.setenv("FOUNDRY_KINDS", package.name)
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    monkeypatch.syspath_prepend(folder)
    package.mkdir()
    for name, text in {"__init__": "", **files}.items():
        (package / f"{name}.py").write_text(text)
    return package


def stage_alone(folder: Path, kind: str, **recipe: Any) -> Path:
    """A pipeline file of one stage, called as its kind."""
    path = folder / "p.yaml"
    stages = {kind: {"kind": kind, "recipe": recipe}}
    path.write_text(yaml.safe_dump({"name": "p", "stages": stages}))
    return path


def words(*overrides: str, document: dict[str, Any] | None = None) -> Pipeline:
    """The small pipeline of tests/kinds with overrides."""
    base = document or yaml.safe_load(WORDS.read_text())
    changed = apply_overrides(base, [parse_override(text) for text in overrides])
    return build_pipeline(changed, kinds=KINDS.__getitem__)
