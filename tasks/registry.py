"""Stage kinds by name: a kind is a file of this folder that defines STAGE."""

import importlib
from pathlib import Path

from foundry_core.errors import FoundryError
from foundry_core.pipeline.stage import Stage
from foundry_core.pipeline.suggest import nearest

_NOT_KINDS = {"__init__", "registry", "execute", "child", "dispatch"}


def kind_names() -> list[str]:
    files = Path(__file__).parent.glob("*.py")
    return sorted(f.stem for f in files if f.stem not in _NOT_KINDS)


def stage_kind(kind: str) -> type[Stage]:
    """The Stage class of a kind; imports its module only. Raises FoundryError for unknown kinds."""
    if kind not in kind_names():
        raise FoundryError(f"unknown stage kind {kind!r}", nearest(kind, kind_names()))
    return importlib.import_module(f"tasks.{kind}").STAGE
