"""pydantic's findings as one readable line each: where, what, which rule, how to mend."""

import reprlib
import typing
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from foundry_core.config.suggest import nearest
from foundry_core.errors import FoundryError


def validate(kind: Any, data: Any, where: str) -> Any:
    """data as `kind` (a model or a union of models), or a FoundryError that names the first
    offending path. null stands for a model's defaults."""
    try:
        if isinstance(kind, type):
            return kind.model_validate(data if data is not None else {})
        return TypeAdapter(kind).validate_python(data)
    except ValidationError as error:
        raise FoundryError(*_explain(kind, error, where)) from None


def _explain(kind: Any, error: ValidationError, where: str) -> tuple[str, str]:
    findings = error.errors(include_url=False)
    unknown = [f for f in findings if f["type"] == "extra_forbidden"]
    finding = (unknown or findings)[0]
    path = ".".join([where, *(str(part) for part in finding["loc"])])
    more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
    if finding["type"] == "extra_forbidden":
        owner = _model_at(kind, finding["loc"][:-1])
        valid = owner.model_fields if owner else ()
        return f"unknown key {path!r}{more}", nearest(str(finding["loc"][-1]), valid)
    if finding["type"] == "missing":
        return f"{path!r} is required{more}", "add it to the pipeline, or override it with -o"
    shown = reprlib.repr(finding.get("input"))
    message = finding["msg"].removeprefix("Value error, ")
    if finding["type"] in ("model_type", "model_attributes_type"):
        message = "a mapping is expected"
    return f"{path} = {shown}: {message}{more}", "`foundry stages KIND` lists what can be set"


def _model_at(kind: Any, location: tuple) -> type[BaseModel] | None:
    """The nested model class at a validation location; union tags in the path are stepped over."""
    candidates = models_in(kind)
    for part in location:
        following = [
            nested
            for candidate in candidates
            if isinstance(part, str) and part in candidate.model_fields
            for nested in models_in(candidate.model_fields[part].annotation)
        ]
        tagged = [c for c in candidates if tag_of(c) == part or c.__name__ == part]
        candidates = following or tagged or candidates
    return candidates[0] if candidates else None


def tag_of(model: type[BaseModel]) -> str | None:
    """What a discriminated union calls this member."""
    for name in ("kind", "format"):
        field = model.model_fields.get(name)
        if field and typing.get_args(field.annotation):
            return typing.get_args(field.annotation)[0]
    return None


def models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for argument in typing.get_args(annotation) for m in models_in(argument)]
