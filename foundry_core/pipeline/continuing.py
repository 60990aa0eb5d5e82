"""Which stages of a plan go on from where another budget ended: in the store, or in the same plan.

Budgets of one recipe that run together form a chain, the shortest first: each begins where the one
before it branched off, and all together do the work of the longest and of the falls of the others.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from foundry_core.errors import FoundryError
from foundry_core.identity.environment import Environment
from foundry_core.pipeline.drift import stage_environment
from foundry_core.pipeline.graph import Pipeline
from foundry_core.pipeline.spec import ByInput, StageSpec
from foundry_core.pipeline.stage import Trunk
from foundry_core.pipeline.trunks import (
    SEVERAL,
    Continues,
    KeptTrunk,
    Search,
    drift_phrases,
    family_of,
    search,
)


class TrunkCatalog(Protocol):
    """As much of the store as is asked here; `plan.Catalog` is the whole."""

    def status(self, kind: str, key: str) -> tuple[str, str, Any]: ...

    def trunks(self, family: str) -> Sequence[KeptTrunk]:
        """The states of a family that are kept."""

    def document(self, kind: str, key: str, name: str) -> Any:
        """A JSON file of a committed artifact; None where there is none."""


@dataclass(frozen=True, kw_only=True)
class _Runs:
    """A stage that runs and shares something with other budgets."""

    spec: StageSpec
    trunk: Trunk
    environment: Environment


def searched(
    pipeline: Pipeline,
    specs: Mapping[str, StageSpec],
    catalog: TrunkCatalog,
    contents: Mapping[str, Mapping[str, Mapping[str, str | None]]],
    running: Collection[str],
) -> dict[str, Search]:
    """What each stage in scope goes on from. contents: of its inputs, as far as they are there."""
    found = {name: Search() for name in contents}
    families: dict[str, list[_Runs]] = {}
    for name in specs:
        if name not in running:
            continue
        trunk = _trunk(pipeline, specs, catalog, name)
        if trunk is None:
            continue
        node = pipeline.stages[name]
        environment = stage_environment(node.stage, specs[name], node.resources)
        one = _Runs(spec=specs[name], trunk=trunk, environment=environment)
        families.setdefault(family_of(one.spec, trunk, one.spec.inputs), []).append(one)
        known = _known(contents[name])
        if known is not None:
            kept = catalog.trunks(family_of(one.spec, trunk, known))
            found[name] = search(one.spec, trunk, known, environment, kept)
    for family in families.values():
        _chain(family, found)
    return found


def _trunk(
    pipeline: Pipeline, specs: Mapping[str, StageSpec], catalog: TrunkCatalog, name: str
) -> Trunk | None:
    node = pipeline.stages[name]

    def fact(slot: str, setting: str, file: str) -> Any:
        up = specs[next(iter(node.inputs[slot].values()))]
        stated = getattr(up.recipe, setting, None)
        if stated is not None:
            return stated
        _, _, committed = catalog.status(up.kind, up.key)
        document = catalog.document(up.kind, committed.key, file) if committed else None
        return document.get(setting) if isinstance(document, dict) else None

    try:
        return node.stage.trunk(node.recipe, node.resources, fact)
    except FoundryError as error:
        raise FoundryError(f"stage {name!r}: {error.message}", error.hint) from None


def _known(contents: Mapping[str, Mapping[str, str | None]]) -> ByInput | None:
    """None where an input is not there."""
    known = {
        slot: {label: content for label, content in named.items() if content is not None}
        for slot, named in contents.items()
    }
    return known if known == contents else None


def _chain(family: Sequence[_Runs], found: dict[str, Search]) -> None:
    """Lets each stage wait for the one before it, where that will leave more than is there."""
    ordered = sorted(family, key=lambda one: (one.trunk.step, one.spec.name))
    for number, one in enumerate(ordered):
        had = found[one.spec.name]
        for before in reversed(ordered[:number]):
            differs = _differences(before, one, found)
            serves = before.trunk.keep and not (differs and one.trunk.extend == "exact")
            if one.trunk.extend == "never" or not serves:
                continue
            if had.found is None or had.found.step < before.trunk.step:
                step, total = before.trunk.step, one.trunk.total
                waits = Continues(step=step, total=total, stage=before.spec.name, differs=differs)
                found[one.spec.name] = Search(found=waits, refused=had.refused)
            break


def _differences(before: _Runs, one: _Runs, found: Mapping[str, Search]) -> tuple[str, ...]:
    """As `trunks.differences`, of a state that is not there yet."""
    begun = found[before.spec.name].found
    mixed = (SEVERAL,) if begun and begun.differs else ()
    return (*mixed, *drift_phrases(before.environment, one.environment))
