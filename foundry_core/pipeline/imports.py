"""External artifacts as stages: `llm: {import: {path: ..., kind: train_llm, digest: sha256:...}}`.

A node like any other to what is downstream. Its identity is its content digest, which is pinned in
the pipeline, so a plan reads none of its bytes and no path ever enters a key.
"""

import re
from collections.abc import Mapping
from typing import Any

from pydantic import Field

from foundry_core.config.canonical import digest
from foundry_core.config.validation import validate
from foundry_core.errors import FoundryError
from foundry_core.pipeline.stage import Recipe, Stage

CODE = "imported"
PLACES = ("path", "uri", "alias", "key")
_DIGEST = re.compile(r"(sha256:)?([0-9a-f]{64})")


class Import(Recipe):
    """Where external bytes are, which kind of stage they stand for, and what they must be."""

    kind: str = Field(description="stage kind that it stands for")
    digest: str = Field(
        description="content digest that it must have, as `foundry lineage import` prints it"
    )
    path: str | None = Field(None, description="a folder; one of path, uri, alias, key is given")
    uri: str | None = Field(None, description="s3://bucket/prefix")
    alias: str | None = Field(None, description="name of an artifact of this store")
    key: str | None = Field(None, description="key of an artifact of this store, or its beginning")

    @property
    def content(self) -> str:
        """The pinned digest as 64 hex digits."""
        found = _DIGEST.fullmatch(self.digest)
        return found[2] if found else ""

    @property
    def place(self) -> tuple[str, str]:
        """('path' | 'uri' | 'alias' | 'key', its value)."""
        return next((name, value) for name in PLACES if (value := getattr(self, name)))


class Imported(Stage):
    """Base of the stages that stand for external artifacts; each has its kind's output."""

    code = CODE
    seeded = False
    Recipe = Import


def imported_key(kind: str, content: str) -> str:
    """The key of external bytes: a function of what they are, not of where they lie."""
    # "adopted" is the word that keys of imports were made with from the start.
    return digest({"schema": 1, "kind": kind, "adopted": content})


def import_recipe(name: str, spec: Mapping[str, Any]) -> Import:
    """The checked `import:` of a stage. FoundryError for every mistake that needs no reading."""
    where = f"{name}.import"
    more = sorted(set(spec) - {"import", "resources"})
    if more:
        raise FoundryError(f"stage {name!r} has `import` and {', '.join(more)}", "give one of them")
    declared = spec["import"]
    if not isinstance(declared, Mapping):
        raise FoundryError(f"{where} is not a mapping", "e.g. {path: …, kind: …, digest: sha256:…}")
    if "digest" not in declared:
        raise FoundryError(
            f"{where} pins no digest",
            "`foundry lineage import KIND DIR` prints it: digest: sha256:…",
        )
    recipe = validate(Import, declared, where)
    given = [place for place in PLACES if getattr(recipe, place)]
    if len(given) != 1:
        raise FoundryError(
            f"{where} names {' and '.join(given) or 'no place'}", f"give one of {', '.join(PLACES)}"
        )
    if not recipe.content:
        raise FoundryError(
            f"{where}.digest = {recipe.digest!r}: expected sha256: and 64 hex digits",
            "`foundry lineage import KIND DIR` prints it",
        )
    return recipe


def import_stage(stage: type[Stage]) -> type[Imported]:
    """A stage without inputs that stands for an external artifact of this kind."""
    return type(
        f"Imported{stage.__name__}", (Imported,), {"kind": stage.kind, "output": stage.output}
    )
