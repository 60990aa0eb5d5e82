"""A stage must run as what it was identified as.

Its key was computed when the run was planned; its process starts minutes or hours later and imports
what the files hold by then. Someone who edits code or raw data meanwhile would get the new result
under the old key, for good. So the process looks before it begins and after it is done.
"""

from collections.abc import Mapping
from typing import Any

from foundry_core.errors import FoundryError
from foundry_core.pipeline.code import CodeIndex
from foundry_core.pipeline.identity import StageSpec, closure_of
from foundry_core.pipeline.plan import short_names
from foundry_core.pipeline.stage import Stage


def identity_of(spec: StageSpec) -> dict[str, Any]:
    """What `check_unchanged` compares with, as JSON."""
    return {
        "code": spec.code,
        "functions": dict(spec.functions),
        "sources": dict(spec.sources),
    }


def check_unchanged(
    stage: type[Stage], recipe: Any, identity: Mapping[str, Any], when: str
) -> None:
    """Raises FoundryError when code (where it is identified by its closure) or sources differ from
    `identity`. when: since when, for the message."""
    hint = "run again: the next plan knows the change"
    if identity["code"].startswith("closure:"):
        found = closure_of(stage, CodeIndex())
        if identity["code"] != f"closure:{found.digest}":
            names = _differing(found.functions, identity["functions"])
            raise FoundryError(f"its code changed {when}: {short_names(names)}", hint)
    changed = _differing(stage.sources(recipe), identity["sources"])
    if changed:
        raise FoundryError(f"its sources changed {when}: {', '.join(changed)}", hint)


def _differing(one: Mapping[str, str], other: Mapping[str, str]) -> list[str]:
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))
