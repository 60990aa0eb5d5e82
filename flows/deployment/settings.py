"""The settings of all pipelines as a drop-down of Prefect's forms: path, current values, range.

Prefect's forms know no fields that depend on others, so the list has the settings of every
pipeline, each with the values it has in them. A path that is not in it may be typed.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import annotated_types
from pydantic import BaseModel

from foundry_core.config.documents import pipeline_names
from foundry_core.errors import FoundryError
from foundry_core.pipeline.graph import load_pipeline
from foundry_core.pipeline.registry import stage_kind

# Between a path and what is said of it in the drop-down.
_MARK = " ("
_MOST_VALUES, _LONGEST_VALUE = 3, 24
_BOUNDS = {
    annotated_types.Ge: ("ge", "≥"),
    annotated_types.Gt: ("gt", ">"),
    annotated_types.Le: ("le", "≤"),
    annotated_types.Lt: ("lt", "<"),
}


def choices() -> list[str]:
    """'llm.training.steps (800 in demo, 8 in demo-fast; ≥ 0)' for every setting, by its path. A
    pipeline that cannot be loaded here has no part in it."""
    values: dict[str, dict[str, list[str]]] = {}
    ranges: dict[str, str] = {}
    for name in pipeline_names():
        try:
            pipeline = load_pipeline(name, (), kinds=stage_kind)
        except FoundryError:  # a package of its benchmark is not installed, say
            continue
        for stage, node in pipeline.stages.items():
            for path, value, bounds in _settings(stage, node.recipe):
                values.setdefault(path, {}).setdefault(_shown(value), []).append(name)
                ranges[path] = bounds
    return [_label(path, values[path], ranges[path]) for path in sorted(values)]


def path_of(choice: str) -> str:
    """The path of a choice, or of what somebody typed."""
    return choice.partition(_MARK)[0].strip()


def with_choices(schema: dict[str, Any], forms: tuple[str, ...]) -> dict[str, Any]:
    """The schema of a form with the drop-down in the field `path` of these models of it."""
    listed = {"title": "Choose", "type": "string", "enum": choices()}
    definitions = dict(schema.get("definitions", {}))
    for form in forms:
        if form not in definitions:
            continue
        fields = dict(definitions[form]["properties"])
        typed = {"title": "Write", "type": "string"}
        about = {key: fields["path"][key] for key in ("title", "description", "position")
                 if key in fields["path"]}  # fmt: skip
        fields["path"] = {**about, "anyOf": [listed, typed]}
        definitions[form] = {**definitions[form], "properties": fields}
    return {**schema, "definitions": definitions}


def _settings(prefix: str, config: BaseModel) -> Iterator[tuple[str, Any, str]]:
    """Path, value and range of every leaf."""
    for name, field in type(config).model_fields.items():
        value, path = getattr(config, name), f"{prefix}.{name}"
        if isinstance(value, BaseModel):
            yield from _settings(path, value)
        elif isinstance(value, Mapping) and any(isinstance(v, BaseModel) for v in value.values()):
            for key, one in value.items():
                yield from _settings(f"{path}.{key}", one)
        else:
            yield path, value, _bounds(field.metadata)


def _bounds(metadata: list[Any]) -> str:
    """'≥ 0, < 1'."""
    said = []
    for one in metadata:
        for kind, (attribute, sign) in _BOUNDS.items():
            if isinstance(one, kind):
                said.append(f"{sign} {getattr(one, attribute)}")
    return ", ".join(said)


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"


def _label(path: str, values: Mapping[str, list[str]], bounds: str) -> str:
    shown = [f"{value} in {names[0]}" for value, names in list(values.items())[:_MOST_VALUES]]
    more = len(values) - len(shown)
    said = ", ".join([*shown, *([f"{more} more"] if more else [])])
    return f"{path}{_MARK}{said}{f'; {bounds}' if bounds else ''})"
