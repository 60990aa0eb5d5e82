"""What can be set in a recipe, as an override would spell it."""

import types
import typing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, Union

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from foundry_core.config.registry import one_of
from foundry_core.config.validation import models_in, spelled, tag_of

_LONGEST = 60


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One field. path: within the recipe; `head[flow].dim` is `head.dim` where head.kind is flow.
    default: '' for a field that must be given."""

    path: str
    type: str
    default: str
    description: str


def settings_of(
    model: type[BaseModel], path: str = "", around: frozenset[type[BaseModel]] = frozenset()
) -> Iterator[Setting]:
    """Every field of a config and of the configs in it, in their order. around: configs that it
    lies in; one that may stand within itself is not gone into again."""
    for name, info in model.model_fields.items():
        if not is_tag(model, name):
            yield setting_of(name, info, path)
        for inner, tag in configs_in(info):
            if inner in around or inner is model:
                continue
            here = f"{path}{spelled(name, info)}"
            yield from settings_of(
                inner, f"{here}[{tag}]." if tag else f"{here}.", around | {model}
            )


def setting_of(name: str, info: FieldInfo, path: str = "") -> Setting:
    """One field of a config that lies at `path`."""
    return Setting(
        path=f"{path}{spelled(name, info)}",
        type=_type_text(info.annotation, info.metadata) + _bounds(info),
        default=_default_text(info),
        description=info.description or "",
    )


def configs_in(info: FieldInfo) -> list[tuple[type[BaseModel], str | None]]:
    """The configs that a field may hold, each with the tag that tells it from the others."""
    nested = models_in(info.annotation, info.metadata)
    tagged = len(nested) > 1 or one_of(info.annotation, info.metadata) is not None
    return [(inner, tag_of(inner) if tagged else None) for inner in nested]


def is_tag(model: type[BaseModel], name: str) -> bool:
    """Whether a field only says which config it stands in."""
    return name in ("kind", "format") and tag_of(model) is not None


def _type_text(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    choice = one_of(annotation, metadata)
    if choice is not None:
        return " | ".join(choice.registry.names())
    if annotation is types.NoneType:
        return "null"
    if hasattr(annotation, "__metadata__"):
        return _type_text(annotation.__origin__)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return tag_of(annotation) or "mapping"
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return " | ".join(map(str, parts))
    if origin in (Union, types.UnionType):
        return " | ".join(dict.fromkeys(map(_type_text, parts)))
    if origin in (tuple, list, frozenset):
        return f"[{', '.join('…' if p is ... else _type_text(p) for p in parts)}]"
    if origin is not None and len(parts) == 2:
        return f"{{{_type_text(parts[0])}: {_type_text(parts[1])}}}"
    return getattr(annotation, "__name__", str(annotation))


_SIGNS = (
    (annotated_types.Ge, "ge", "≥"),
    (annotated_types.Gt, "gt", ">"),
    (annotated_types.Le, "le", "≤"),
    (annotated_types.Lt, "lt", "<"),
)


def _bounds(info: FieldInfo) -> str:
    found = [
        f"{sign} {getattr(mark, name)}"
        for mark in info.metadata
        for kind, name, sign in _SIGNS
        if isinstance(mark, kind)
    ]
    return f" ({', '.join(found)})" if found else ""


def _default_text(info: FieldInfo) -> str:
    if info.is_required():
        return ""
    value = info.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return tag_of(type(value)) or "{…}"
    if value is None:
        return "null"
    if isinstance(value, (tuple, list)):
        text = f"[{', '.join('{…}' if isinstance(v, BaseModel) else str(v) for v in value)}]"
        return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 2]}…]"
    return str(value).lower() if isinstance(value, bool) else str(value)
