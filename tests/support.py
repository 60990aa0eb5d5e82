"""Helpers for tests of the machinery: small kinds, documents, stores in a temporary home."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

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


def words(*overrides: str, document: dict[str, Any] | None = None) -> Pipeline:
    """The small pipeline of tests/kinds with overrides."""
    base = document or yaml.safe_load(WORDS.read_text())
    changed = apply_overrides(base, [parse_override(text) for text in overrides])
    return build_pipeline(changed, kinds=KINDS.__getitem__)
