"""Canonical JSON: one byte string per value, on any machine, for any spelling.

1 and 1.0 are equal, mapping order does not matter, NaN and infinity are refused, and a value
without a stable form (an object, a callable, bytes) is refused rather than str()'d: a key built
on an address or a repr would be wrong in silence.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Annotated, Any, TypeAlias, TypeVar, get_args

from pydantic import BaseModel

from foundry_core.errors import FoundryError
from foundry_core.files import sha256_hex

Json: TypeAlias = Any


@dataclass(frozen=True)
class OmitWhen:
    """Marks a field that was added to an existing recipe: left out of the identity while it holds
    this value, so that the keys of the past stay valid. The value is frozen here and not read from
    the field's default, because a later change of the default must change the key."""

    value: Any


@dataclass(frozen=True)
class NotIdentity:
    """Marks a field of a recipe that locates something whose content is identified elsewhere
    (a path whose digest is among the stage's sources)."""


T = TypeVar("T")
Location = Annotated[T, NotIdentity()]


def canonical(value: Any, where: str = "value") -> Json:
    """value as JSON types with one spelling. Raises FoundryError for anything unstable."""
    if isinstance(value, BaseModel):
        return _canonical_model(value, where)
    if value is None or isinstance(value, (bool, str)):
        return value.value if isinstance(value, Enum) else value
    if isinstance(value, Enum):
        return canonical(value.value, where)
    if isinstance(value, (int, float)):
        return _canonical_number(value, where)
    if isinstance(value, dict):
        bad = [key for key in value if not isinstance(key, str)]
        if bad:
            raise FoundryError(f"{where}: key {bad[0]!r} is not a string", "use string keys")
        return {key: canonical(value[key], f"{where}.{key}") for key in sorted(value)}
    if isinstance(value, (list, tuple)):
        return [canonical(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, frozenset):
        items = [canonical(item, where) for item in value]
        return sorted(items, key=lambda item: json.dumps(item, sort_keys=True))
    raise FoundryError(
        f"{where}: a {type(value).__name__} has no stable form and cannot enter an identity",
        "use numbers, strings, lists, mappings or config objects",
    )


def _canonical_number(value: int | float, where: str) -> int | float:
    if isinstance(value, int):
        return int(value)
    if not math.isfinite(value):
        raise FoundryError(f"{where} = {value}: not a finite number", "give a finite value")
    return int(value) if value.is_integer() else value


def _canonical_model(model: BaseModel, where: str) -> dict[str, Json]:
    if model.model_extra:
        raise FoundryError(
            f"{where}.{next(iter(model.model_extra))} is no declared field",
            "a recipe takes no extra fields: declare it",
        )
    fields: dict[str, Json] = {}
    for name, mark in _identified(type(model)):
        value = canonical(getattr(model, name), f"{where}.{name}")
        if mark is not None and canonical_bytes(mark.value) == canonical_bytes(value):
            continue
        fields[name] = value
    return dict(sorted(fields.items()))


@cache
def _identified(model: type[BaseModel]) -> tuple[tuple[str, OmitWhen | None], ...]:
    """The fields that enter the identity, and what each is left out for."""
    found: list[tuple[str, OmitWhen | None]] = []
    for name, info in model.model_fields.items():
        where = f"{model.__name__}.{name}"
        if info.exclude:
            raise FoundryError(
                f"{where} is excluded from what a stage is given", "drop exclude=True"
            )
        if _marked_within(info.annotation):
            raise FoundryError(
                f"{where}: Location and OmitWhen mark whole fields", "e.g. Location[str | None]"
            )
        if any(isinstance(mark, NotIdentity) for mark in info.metadata):
            continue
        omit = [mark for mark in info.metadata if isinstance(mark, OmitWhen)]
        found.append((name, omit[0] if omit else None))
    return tuple(found)


def locations(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """(dotted path, value) of every text in a config that says where something lies."""
    if isinstance(value, BaseModel):
        for name, info in type(value).model_fields.items():
            part, inner = getattr(value, name), f"{path}.{name}" if path else name
            if any(isinstance(mark, NotIdentity) for mark in info.metadata):
                if isinstance(part, str):
                    yield inner, part
            else:
                yield from locations(part, inner)
    elif isinstance(value, Mapping):
        for name, part in value.items():
            yield from locations(part, f"{path}.{name}")
    elif isinstance(value, (list, tuple)):
        for number, part in enumerate(value):
            yield from locations(part, f"{path}.{number}")


def _marked_within(annotation: Any) -> bool:
    marks = getattr(annotation, "__metadata__", ())
    return any(isinstance(mark, (NotIdentity, OmitWhen)) for mark in marks) or any(
        _marked_within(part) for part in get_args(annotation)
    )


def canonical_bytes(value: Any, where: str = "value") -> bytes:
    plain = canonical(value, where)
    return json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def digest(value: Any) -> str:
    """sha256 of the canonical JSON, 64 hex digits."""
    return sha256_hex(canonical_bytes(value))
