"""A stage must run as what it was identified as.

Its key was computed when the run was planned; its process starts minutes or hours later and imports
what the files hold by then. Someone who edits code or raw data meanwhile would get the new result
under the old key, for good. So the process looks before it begins and after it is done.
"""

import contextlib
import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path

from foundry_core.config.canonical import canonical
from foundry_core.errors import FoundryError
from foundry_core.identity.code import CodeIndex
from foundry_core.pipeline.reasons import differing, short_names
from foundry_core.pipeline.spec import StageSpec, fingerprint_code, stage_fingerprint
from foundry_core.pipeline.stage import FINGERPRINT, Stage

# Longer than compiling a module takes.
_COMPILED_WITHIN_SECONDS = 10


def check_unchanged(stage: type[Stage], spec: StageSpec, when: str) -> None:
    """Raises FoundryError when code (where its fingerprint is in the key), what the recipe is read
    as, or sources are not what the spec says. when: since when, for the message."""
    hint = "run again: the next plan knows the change"
    if spec.code.startswith(f"{FINGERPRINT}:"):
        found = stage_fingerprint(stage, spec.recipe, CodeIndex())
        if fingerprint_code(found) != spec.code:
            names = differing(found.functions, spec.functions)
            raise FoundryError(f"its code changed {when}: {short_names(names)}", hint)
    changed = differing(canonical(spec.recipe), spec.recipe_json)
    if changed:
        raise FoundryError(f"its recipe means another thing {when}: {', '.join(changed)}", hint)
    changed = differing(stage.sources(spec.recipe), spec.sources)
    if changed:
        raise FoundryError(f"its sources changed {when}: {', '.join(changed)}", hint)


def drop_stale_bytecode(functions: Mapping[str, str]) -> None:
    """Makes the next process compile the modules of these functions ('module:name') that were
    edited last when their bytecode was not yet written.

    Python takes bytecode for a source's when the size and the second of its mtime agree; an edit of
    equal length within a second, or one that keeps the mtime (`cp -p`, `rsync -t`), would run the
    old code under the new code's key. ctime tells: nothing sets it back.
    """
    for module in {name.partition(":")[0] for name in functions}:
        spec = importlib.util.find_spec(module)
        if spec is None or not spec.origin or not spec.cached:
            continue
        try:
            compiled = os.stat(spec.cached).st_mtime
        except OSError:
            continue
        if compiled < os.stat(spec.origin).st_ctime + _COMPILED_WITHIN_SECONDS:
            # Who may not remove it has no edited source beside it either.
            with contextlib.suppress(OSError):
                Path(spec.cached).unlink()
