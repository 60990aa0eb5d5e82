"""Artifacts of a plan that somebody wants to look into, without a run."""

import shlex
from collections.abc import Iterable

from flows.runs.planning import Prepared
from foundry_core.config.overrides import override_text
from foundry_core.errors import FoundryError
from foundry_core.store.manifest import Artifact


def built(prepared: Prepared, names: Iterable[str]) -> dict[str, Artifact]:
    """Stage → its valid artifact. One FoundryError for all that are not built, with the command
    that builds them."""
    wanted = list(dict.fromkeys(names))
    found = {name: artifact for name in wanted if (artifact := _valid(prepared, name))}
    missing = [name for name in wanted if name not in found]
    if not missing:
        return found
    request = prepared.request
    words = ["foundry", "run", request.pipeline]
    for path, value in request.overrides:
        words += ["-o", override_text(path, value)]
    on_the_way = prepared.pipeline.with_ancestors(
        up for name in missing for _, _, up in prepared.pipeline.stages[name].upstream()
    )
    for name in missing:
        words += [] if name in on_the_way else ["--only", name]
    which, verb = ", ".join(map(repr, missing)), "is" if len(missing) == 1 else "are"
    stages = "stage" if len(missing) == 1 else "stages"
    raise FoundryError(f"{stages} {which} {verb} not built yet", shlex.join(words))


def _valid(prepared: Prepared, name: str) -> Artifact | None:
    row = prepared.plan.stages[name]
    if row.action != "reuse" or row.artifact is None:
        return None
    return prepared.store.read(row.kind, row.artifact)
