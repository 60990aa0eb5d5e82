"""Stage kinds by name: a kind is a module that defines STAGE, a Stage subclass.

Ours are the files of this folder. A lab adds its own without touching them: FOUNDRY_KINDS names
importable packages, separated by commas, whose modules are kinds too. Packages that those call
belong there as well, kinds or not: the code of all that are named is part of a stage's identity.
"""

import importlib
import importlib.util
import os
import re
from functools import cache
from pathlib import Path

from foundry_core.config.suggest import nearest
from foundry_core.errors import FoundryError
from foundry_core.pipeline.stage import Stage

_DEFINES = re.compile(r"^STAGE\b", re.MULTILINE)


@cache
def _modules(extra: str) -> dict[str, str]:
    """kind → module."""
    found: dict[str, str] = {}
    for package in ["tasks", *filter(None, extra.split(","))]:
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise FoundryError(f"FOUNDRY_KINDS: {package!r} is no importable package", "mend it")
        for file in Path(spec.submodule_search_locations[0]).glob("*.py"):
            if not _DEFINES.search(file.read_text()):
                continue
            module = f"{package}.{file.stem}"
            if file.stem in found:
                raise FoundryError(
                    f"FOUNDRY_KINDS: {module} and {found[file.stem]} are both kind {file.stem!r}",
                    "rename one of the files",
                )
            found[file.stem] = module
    return found


def stage_kind(kind: str) -> type[Stage]:
    """The Stage class of a kind; imports its module only. Raises FoundryError for unknown kinds."""
    modules = _modules(os.environ.get("FOUNDRY_KINDS", ""))
    if kind not in modules:
        raise FoundryError(f"unknown stage kind {kind!r}", nearest(kind, modules))
    stage = importlib.import_module(modules[kind]).STAGE
    if stage.kind != kind:
        raise FoundryError(
            f"{modules[kind]} defines kind {stage.kind!r}", "a kind is called as its file is"
        )
    return stage


def stage_kinds() -> list[str]:
    return sorted(_modules(os.environ.get("FOUNDRY_KINDS", "")))
