"""`-o stage.path=value`: one leaf of a pipeline changed from outside."""

import contextlib
import json
from collections.abc import Iterable
from copy import deepcopy
from typing import Any

from foundry_core.config.documents import TAGS
from foundry_core.config.parsing import MAX_DEPTH, parse_yaml
from foundry_core.config.suggest import nearest
from foundry_core.errors import FoundryError

STAGE_KEYS = ("kind", "inputs", "recipe", "resources", "seed", "import")


def parse_override(text: str) -> tuple[str, Any]:
    """'llm.training.steps=200' → ('llm.training.steps', 200); the value is YAML."""
    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise FoundryError(f"override {text!r} is not PATH=VALUE", "e.g. -o llm.training.steps=200")
    return path.strip(), parse_yaml(value, f"override {path.strip()!r}")


def override_text(path: str, value: Any) -> str:
    """What `parse_override` reads as these."""
    return f"{path}={value_text(value)}"


def value_text(value: Any) -> str:
    """A value as an override spells it: plain where YAML reads it so, else as JSON."""
    with contextlib.suppress(FoundryError):
        if parse_override(f"value={value}")[1] == value:
            return str(value)
    return json.dumps(value)


def apply_overrides(
    document: dict[str, Any], overrides: Iterable[tuple[str, Any]]
) -> dict[str, Any]:
    """The document with each override set. The first word is a stage (or `seed`, the pipeline's);
    what follows is a path in the stage's recipe, or `resources.…`, `inputs.…`, `seed`. A mapping
    that gets another kind or format, and a stage that gets an import, start anew. The document
    stays as it is; stages that no override names are its own."""
    changed, own = dict(document), set()
    if isinstance(changed.get("stages"), dict):
        changed["stages"] = dict(changed["stages"])
    for path, value in overrides:
        stage, *rest = path.split(".")
        if stage == "seed" and not rest:
            changed["seed"] = value
            continue
        stages = changed.get("stages") or {}
        if stage not in stages:
            raise FoundryError(
                f"override {path!r}: no stage {stage!r}", nearest(stage, [*stages, "seed"])
            )
        if not rest:
            raise FoundryError(
                f"override {path!r} names a stage but no field", f"e.g. {stage}.seed=1"
            )
        if rest[0] not in STAGE_KEYS:
            rest = ["recipe", *rest]
        if stage not in own:  # what no override names is shared with the document
            stages[stage] = deepcopy(stages[stage])
            own.add(stage)
        _set(stages, [stage, *rest], value, path)
    return changed


def set_path(document: dict[str, Any], path: str, value: Any) -> None:
    """Sets one leaf of a document outside a pipeline; mappings on the way are made."""
    _set(document, path.split("."), value, path)


def _set(target: Any, path: list[str], value: Any, shown: str) -> None:
    if len(path) > MAX_DEPTH:
        raise FoundryError(f"override {shown!r}: more than {MAX_DEPTH} words", "shorten the path")
    for word in path[:-1]:
        if isinstance(target, list):
            target = target[_index(target, word, shown)]
            continue
        if target.get(word) is None:
            target[word] = {}
        target = target[word]
        if not isinstance(target, (dict, list)):
            raise FoundryError(
                f"override {shown!r}: {word!r} holds a value, not a mapping", "shorten the path"
            )
    if isinstance(target, list):
        target[_index(target, path[-1], shown)] = value
        return
    if path[1:] == ["import"] or (path[-1] in TAGS and target.get(path[-1], value) != value):
        target.clear()  # it is another thing now
    target[path[-1]] = value


def _index(items: list, word: str, shown: str) -> int:
    if not word.isdigit() or int(word) >= len(items):
        raise FoundryError(
            f"override {shown!r}: {word!r} is no index of a list of {len(items)}",
            "count from 0, or replace the whole list",
        )
    return int(word)
