"""pydantic's findings as one readable line each: where, what, which rule, how to mend."""

import contextlib
import reprlib
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from foundry_core.config.registry import one_of
from foundry_core.config.suggest import nearest
from foundry_core.errors import FoundryError
from foundry_core.files import read_json

# How to give a value that is required: of a pipeline, and where a command's own -o changes `data`,
# by its path in them.
_IN_PIPELINE = "add it to the pipeline, or override it with -o"
BY_OVERRIDE = "give it with -o {inner}=VALUE"


def validate(kind: Any, data: Any, where: str, missing: str = _IN_PIPELINE) -> Any:
    """data as `kind` (a model or a union of models), or a FoundryError that names the first
    offending path. null stands for a model's defaults. missing: how to give what is required."""
    try:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind.model_validate(data if data is not None else {})
        return TypeAdapter(kind).validate_python(data)
    except ValidationError as error:
        raise FoundryError(*_explain(kind, data, error, where, missing)) from None


def read_as(kind: Any, path: Path, hint: str) -> Any:
    """A JSON file as `kind`, or a FoundryError with this hint that names the file and the first
    place that is of another form."""
    try:
        return TypeAdapter(kind).validate_python(read_json(path))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise FoundryError(f"{path} is of another form: {where}: {first['msg']}", hint) from None
    except ValueError as error:
        raise FoundryError(f"{path} is not JSON: {error}", hint) from None


def _explain(
    kind: Any, data: Any, error: ValidationError, where: str, missing: str
) -> tuple[str, str]:
    findings = error.errors(include_url=False)
    unknown = [f for f in findings if f["type"] == "extra_forbidden"]
    finding = (unknown or findings)[0]
    path = ".".join([where, *(str(part) for part in finding["loc"])])
    more = f" (and {len(findings) - 1} more)" if len(findings) > 1 else ""
    if finding["type"] == "extra_forbidden":
        owner = _model_at(kind, data, finding["loc"][:-1])
        valid = [spelled(n, info) for n, info in owner.model_fields.items()] if owner else ()
        return f"unknown key {path!r}{more}", nearest(str(finding["loc"][-1]), valid)
    if finding["type"] == "missing":
        inner = path.removeprefix(f"{where}.")
        return f"{path!r} is required{more}", missing.format(inner=inner)
    if finding["type"] in ("missing_tag", "unknown_tag"):
        context = finding["ctx"]
        return f"{path}.{context['tag']}: {finding['msg']}{more}", context["hint"]
    shown = reprlib.repr(finding.get("input"))
    message = finding["msg"].removeprefix("Value error, ")
    if finding["type"] in ("model_type", "model_attributes_type"):
        message = "a mapping is expected"
    return f"{path} = {shown}: {message}{more}", "`foundry stages KIND` lists what can be set"


def _model_at(kind: Any, data: Any, location: tuple[int | str, ...]) -> type[BaseModel] | None:
    """The nested model class at a validation location. Tags of unions in the path are stepped over;
    which member of an open set it is, the data say."""
    types: list[tuple[Any, Iterable[Any]]] = [(kind, ())]

    def models() -> list[type[BaseModel]]:
        return [m for annotation, marks in types for m in models_in(annotation, marks, data=data)]

    for part in location:
        found = models()
        named = [
            info
            for m in found
            for name, info in m.model_fields.items()
            if str(part) in (name, info.alias)
        ]
        tagged = [m for m in found if part in (tag_of(m), m.__name__)]
        if named:
            types = [(info.annotation, info.metadata) for info in named]
        elif tagged:
            types = [(model, ()) for model in tagged]
            continue
        data = _item(data, part)
    return next(iter(models()), None)


def _item(data: Any, part: int | str) -> Any:
    if isinstance(data, Mapping):
        return data.get(part)
    if isinstance(data, (list, tuple)) and isinstance(part, int):
        return data[part]
    return None


def spelled(name: str, info: FieldInfo) -> str:
    """How a document writes a field."""
    return info.alias or name


def tag_of(model: type[BaseModel]) -> str | None:
    """What a discriminated union calls this member: the one value of its `kind` or `format`. A
    `kind` with several values is a setting like any other."""
    for name in ("kind", "format"):
        field = model.model_fields.get(name)
        values = typing.get_args(field.annotation) if field else ()
        if len(values) == 1:
            return str(values[0])
    return None


def models_in(
    annotation: Any, metadata: Iterable[Any] = (), *, data: Any = None
) -> list[type[BaseModel]]:
    """Every model that a value may be or hold. Of an open set, the one that `data`, the value of
    the field or a list or mapping around it, asks for; all of them without data."""
    choice = one_of(annotation, metadata)
    if choice is not None:
        if data is None:
            return list(choice.members().values())
        named = isinstance(data, Mapping) and choice.tag in data
        with contextlib.suppress(FoundryError):
            return [choice.member(data)] if named else []
        return []
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for argument in typing.get_args(annotation) for m in models_in(argument, data=data)]
