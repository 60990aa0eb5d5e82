"""Stage kinds by name: a kind is a module that defines STAGE, a Stage subclass.

Ours are the files of `tasks/`. A lab adds its own without touching them: by an entry point of group
`foundry.kinds` in its distribution, or by FOUNDRY_KINDS, which names importable packages, separated
by commas, whose modules are kinds too. Packages that those call belong there as well, kinds or not:
the code of all that are named is part of a stage's identity.
"""

from typing import Final

from foundry_core.config.registry import Registry
from foundry_core.errors import FoundryError
from foundry_core.pipeline.stage import TRUNK, Stage

KINDS: Final = Registry[type[Stage]](
    group="foundry.kinds",
    package="tasks",
    attribute="STAGE",
    noun="stage kind",
    variable="FOUNDRY_KINDS",
)


def stage_kind(kind: str) -> type[Stage]:
    """The Stage class of a kind; imports its module only. Raises FoundryError for unknown kinds,
    and for one whose module is broken."""
    stage = KINDS.get(kind)
    if not (isinstance(stage, type) and issubclass(stage, Stage)):
        raise FoundryError(
            f"{KINDS.module(kind)}: STAGE is no stage", "STAGE = <a subclass of Stage>"
        )
    if stage.kind != kind:
        raise FoundryError(
            f"{KINDS.module(kind)} defines kind {stage.kind!r}", "a kind is called as its file is"
        )
    if kind == TRUNK:
        raise FoundryError(
            f"{KINDS.module(kind)}: a store calls states of trainings {TRUNK!r}", "rename the kind"
        )
    return stage


def stage_kinds() -> list[str]:
    """The names of all of them, sorted."""
    return KINDS.names()
